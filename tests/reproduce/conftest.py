"""Fixtures that several tests of scripts and pages share."""

import browsing
import pytest


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, or a skip."""
    driver = browsing.start()
    yield driver
    driver.quit()
