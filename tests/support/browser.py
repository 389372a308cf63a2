"""Headless Chromium for the tests of pages; what it finds is computed in the page itself."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync"
)
MISSING = "Chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)"
CONTRAST = """
const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, style = getComputedStyle(element);
  const shown = element.checkVisibility ? element.checkVisibility() : true;
  const silent = ["SCRIPT", "STYLE", "title", "OPTION"].includes(element.tagName);
  if (!walker.currentNode.data.trim() || !shown || silent) continue;
  const back = behind(element), color = over(parse(element.closest("svg") ? style.fill : style.color), back);
  const [high, low] = [light(color), light(back)].sort((a, b) => b - a);
  found.push([(high + 0.05) / (low + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
}
return found;
"""
"""WCAG 2.1: (L1 + 0.05) / (L2 + 0.05) of relative luminances, for every text that is shown."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped without one, and fails where CI=true says that there must be one."""
    program, driver = (shutil.which(n) for n in ("chromium", "chromedriver"))
    if program is None or driver is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options, Service(driver))
    try:
        yield Browser(opened)
    finally:
        opened.quit()


class Browser:
    """One page at a time, seen as by a person with a screen of some size."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.logs()
        self.driver.get("about:blank")
        self.driver.get(page.as_uri())

    def logs(self) -> tuple[list[str], list[str]]:
        """Messages of the console since the last call, and the requested addresses."""
        console = [entry["message"] for entry in self.driver.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return console, [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def script(self, text: str, *arguments: Any) -> Any:
        """Run JavaScript."""
        return self.driver.execute_script(text, *arguments)

    def contrasts(self) -> list[tuple[float, str]]:
        """Contrast and beginning of every text that is shown."""
        return [(ratio, text) for ratio, text in self.script(CONTRAST)]

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
