# SPDX-License-Identifier: GPL-2.0-only
"""Headless Chromium for tests of pages. Screenshots go to the folder KSM_SCREENSHOTS, if it is set.

Needs Debian's chromium and chromium-driver, and selenium. In CI, tests fail where they are missing.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
LAPTOP = (1440, 900)


def missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"needs {what}")


def start() -> Any:
    """A driver of a new browser. The caller calls quit()."""
    if not CHROMIUM or not DRIVER:
        missing("Debian's chromium and chromium-driver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        missing("selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size={},{}".format(*LAPTOP)):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


def screenshot(browser: Any, name: str) -> None:
    folder = os.environ.get("KSM_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(f"{folder}/{name}.png")


def one(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def every(browser: Any, selector: str) -> Any:
    return browser.find_elements("css selector", selector)


def eventually(true: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
