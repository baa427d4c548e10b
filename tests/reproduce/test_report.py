"""The page of results, also as a browser shows it."""

import subprocess
import sys
from pathlib import Path

import pytest
from browsing import open_page
from made_records import make_record

from reinforce_dropout.results import records
from reinforce_dropout.results.claims import PAPER

SCRIPTS = Path(__file__).parents[2] / "reproduce"
sys.path.append(str(SCRIPTS))  # behind the tests' own folder, which has names of its own


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a root with two seeds and a ledger."""
    root = tmp_path_factory.mktemp("root")
    results = root / "reproduce" / "results"
    for folder, seed in ((results, 1), (results / "seed-2", 2)):
        folder.mkdir(parents=True)
        for name in PAPER:
            records.write(folder / f"{name}.hdf5", make_record(name, seed=seed))
    (results / "ledger").mkdir()
    records.write(results / "ledger" / "one.hdf5", make_record("policy-500", l2_of="norms"))
    for script in ("figures.py", "report.py"):
        command = [sys.executable, SCRIPTS / script, "--root", root]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return root / "figures" / "report.html"


def test_the_page_holds_what_is_recorded_and_refers_to_nothing_outside(page):
    text = page.read_text()
    assert "l2_of=norms" in text and "The trade-off" not in text
    assert text.count("<svg") == 2
    for opening in ('src="', "url(http", 'href="http', "@import", '<link rel="style'):
        assert opening not in text
    assert page.with_name("claims.md").exists() and page.with_name("ledger.png").exists()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page(browser, page, width):
    """Also, every figure has a text, and a point shows its run."""
    open_page(browser, page, width)
    figures = browser.find_elements("css selector", "figure")
    assert figures and all(figure.get_attribute("aria-label") for figure in figures)
    browser.execute_script("document.querySelector('.point').focus()")
    tip = browser.find_element("id", "tip")
    assert tip.is_displayed() and "policy-500" in tip.text
