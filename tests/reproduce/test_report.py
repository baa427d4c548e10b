"""The page of results, also as a browser shows it."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
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


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, or a skip."""
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = SimpleNamespace(
        browser=shutil.which("chromium") or shutil.which("google-chrome"),
        driver=shutil.which("chromedriver"),
    )
    if not (programs.browser and programs.driver):
        pytest.skip("there is no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs.browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs.driver))
    yield driver
    driver.quit()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page(browser, page, width):
    """No error, no request except for the file, no overflow, a text for every figure."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("performance")
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    sent = [
        entry["message"] for entry in browser.get_log("performance")
        if "Network.requestWillBeSent\"" in entry["message"]
    ]  # fmt: skip
    assert sent and all("file://" in message or '"url":"data:' in message for message in sent)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    figures = browser.find_elements("css selector", "figure")
    assert figures and all(figure.get_attribute("aria-label") for figure in figures)
    browser.execute_script("document.querySelector('.point').focus()")
    tip = browser.find_element("id", "tip")
    assert tip.is_displayed() and "policy-500" in tip.text
