"""The page to play with computes what the package computes."""

import re
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from browsing import open_page
from reference import compiled
from scipy.special import softmax

from reinforce_dropout.results import records
from reinforce_dropout.running import datasets
from reinforce_dropout.running.evaluation import load_model

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "play" / "index.html"
RUNS = sorted(
    map(records.read, (ROOT / "reproduce" / "results" / "play").glob("*.hdf5")),
    key=lambda run: run.attributes["experiment"]["lam"],
)
N_IMAGES = 20  # in the page


@pytest.fixture(scope="module")
def page(browser):
    """A browser that shows the page on a wide screen."""
    open_page(browser, PAGE, 1280)
    return browser


@pytest.fixture(scope="module")
def images():
    """The test images of the page, from the data set."""
    test = datasets.load().test
    chosen = np.concatenate([np.flatnonzero(test.labels == c)[:2] for c in range(10)])
    return test.images[chosen]


def by_package(run, rule, images):
    """Return the probability of each unit, the mask, and the class probabilities."""
    _, system = load_model(run)
    x, rng = pt.fmatrix("x"), pytensor.shared(np.random.default_rng(5))
    passes = [system.predict[name](x, rng) for name in ("expected", rule)]
    outputs = [passes[0].stages[0].U, passes[1].stages[0].U, passes[1].logits]
    sigma, u, logits = compiled([x], outputs)(images)
    return sigma, u, softmax(logits, axis=1)


def choose(browser, name, value):
    """Click a radio button."""
    browser.find_element("css selector", f"input[name={name}][value='{value}']").click()


def test_the_page_holds_three_networks_and_the_images(page, images):
    assert len(RUNS) == 3
    assert page.execute_script("return models.map(m => m.lam)") == [
        run.attributes["experiment"]["lam"] for run in RUNS
    ]
    np.testing.assert_allclose(page.execute_script("return pixels"), images, atol=1e-6)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("rule", ["sampled", "expected", "thresholded"])
def test_every_number_is_that_of_the_package(page, images, number, rule):
    sigma, u, probabilities = by_package(RUNS[number], rule, images)
    script = """
        const [number, u] = arguments, model = models[number];
        return pixels.map((x, i) => [policy(model, x), classify(model, x, u[i])]);
    """
    shown = page.execute_script(script, number, u.tolist())
    np.testing.assert_allclose([one[0] for one in shown], sigma, atol=1e-4)
    np.testing.assert_allclose([one[1] for one in shown], probabilities, atol=1e-4)
    if rule != "sampled":
        script = "return arguments[0].map((sigma) => rules[arguments[1]](sigma))"
        masks = page.execute_script(script, sigma.tolist(), rule)
        np.testing.assert_allclose(masks, u, atol=1e-6)


def test_masks_are_drawn_with_their_probabilities(page):
    script = """
        let [sum, n] = [[0, 0, 0], 4000];
        for (let i = 0; i < n; i++)
            rules.sampled([0, 0.3, 1]).forEach((u, k) => { sum[k] += u / n; });
        return sum;
    """
    np.testing.assert_allclose(page.execute_script(script), [0, 0.3, 1], atol=0.04)


def test_controls_change_what_is_shown(page, images):
    choose(page, "model", 2)
    choose(page, "rule", "expected")
    menu = page.find_element("id", "examples")
    menu.find_elements("tag name", "option")[7].click()
    shown = [float(o.text.rstrip(" %")) / 100 for o in page.find_elements("tag name", "output")]
    _, _, probabilities = by_package(RUNS[2], "expected", images)
    np.testing.assert_allclose(shown, probabilities[7], atol=6e-4)
    choose(page, "rule", "sampled")
    masks = set()
    for _ in range(20):
        page.find_element("id", "again").click()
        masks.add(str(page.execute_script("return state.u")))
    assert len(masks) > 1
    on = page.execute_script("return state.u.reduce((a, b) => a + b)")
    assert page.find_element("id", "count").text.startswith(f"{on} of 128 units")
    assert len(page.find_elements("css selector", "#units .on")) == on
    darkness = page.execute_script("""
        return [...id("units").children].map((cell) => {
            const shown = document.createElement("canvas").getContext("2d");
            shown.fillStyle = getComputedStyle(cell).backgroundColor;
            shown.fillRect(0, 0, 1, 1);
            return 1 - shown.getImageData(0, 0, 1, 1).data[0] / 255;
        })
    """)
    np.testing.assert_allclose(darkness, page.execute_script("return state.sigma"), atol=0.01)
    # a unit costs its 784 weights and its 10 to the classes
    work = re.search(r"(\d+) % of its", page.find_element("id", "work").text)
    assert abs(float(work[1]) - 100 * on / 128) <= 0.5


def test_keys_draw(page):
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    pad = cleared(page)
    pad.send_keys(" ", keys.ARROW_DOWN * 5, " ", keys.ARROW_RIGHT * 4)
    assert_centred_stroke(page)


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_a_pointer_draws(page, kind):
    actions = pytest.importorskip("selenium.webdriver.common.actions.action_builder")
    inputs = pytest.importorskip("selenium.webdriver.common.actions.pointer_input")
    pad = cleared(page)
    builder = actions.ActionBuilder(page, mouse=inputs.PointerInput(kind, kind), duration=20)
    builder.pointer_action.move_to(pad, -40, -60).pointer_down().move_to(pad, -30, 30).pointer_up()
    builder.perform()
    assert_centred_stroke(page)


def cleared(browser):
    """Clear the drawing, and return its element."""
    browser.find_element("id", "clear").click()
    assert browser.execute_script("return Math.max(...state.x)") == 0
    return browser.find_element("id", "pad")


def assert_centred_stroke(browser):
    """What is seen is 20 pixels high, upright, and its centre of mass is in the middle."""
    image = np.reshape(browser.execute_script("return state.x"), (28, 28))
    rows, columns = (np.flatnonzero(image.sum(axis=axis)) for axis in (1, 0))
    assert 19 <= len(rows) <= 21 and len(columns) < 19
    assert image.max() > 0.9
    at = np.arange(28)
    for axis in (0, 1):
        assert abs((image.sum(axis=axis) * at).sum() / image.sum() - 13.5) < 0.75


def test_the_page_fits_a_phone(browser):
    open_page(browser, PAGE, 390)
    for picture in browser.find_elements("tag name", "canvas"):
        assert picture.get_attribute("aria-label")
