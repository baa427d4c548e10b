"""Headless Chromium for the tests of pages."""

import shutil

import pytest


def start():
    """Return a driver of headless Chromium, or skip the test."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("there is no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def open_page(browser, page, width):
    """Show a file, and check it: no error, no request except for the file, and no overflow."""
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
