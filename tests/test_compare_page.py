"""The page of a comparison in a real browser: one file, nothing from the network, usable by everybody."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amct_onnx.comparison.html.charts import histogram
from amct_onnx.comparison.html.write_html import render_html, write_html
from browser import Browser, chromium

EXAMPLE = Path(__file__).parent / "data" / "compare_report.json"
HOSTILE = "</script></title><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'{{7*7}}"
READABLE = 4.5
"""Least contrast of text, WCAG 2.1 level AA."""
PHONE = 360


def example() -> dict[str, Any]:
    report: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return report


def many_layers() -> dict[str, Any]:
    """500 layers of a network with long names."""
    report = example()
    layers = report["layers"]
    report["layers"] = [copy.deepcopy(layers[i % len(layers)]) for i in range(500)]
    for index, layer in enumerate(report["layers"]):
        layer["name"] = f"/backbone/stages.{index // 50}/blocks.{index % 50}/attention/output/dense/MatMul_{index}"
    for divergence in report["divergences"]:
        divergence["index"], divergence["layer"] = 404, report["layers"][404]["name"]
    return report


def one_layer() -> dict[str, Any]:
    """A model of one layer without metrics, divergence and histograms."""
    report = example()
    report["layers"], report["divergences"], report["histograms"] = report["layers"][:1], [], []
    for model in report["models"]:
        model["metrics"] = []
    report["verdict"].update(level="equal", advice=[])
    return report


def partial() -> dict[str, Any]:
    """Interrupted before any layer was compared."""
    report = example()
    report.update(complete=False, samples=32, samples_total=10_000)
    for layer in report["layers"]:
        layer.update(differences=[], counts=[], compared=False)
    return report


def hostile() -> dict[str, Any]:
    """Every text of the report wants to run a script or to leave its place."""

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v, key) for v in value]
        kept = ("key", "model", "level", "verdict", "action", "form")
        return HOSTILE + value if isinstance(value, str) and key not in kept else value

    report: dict[str, Any] = spoil(example())
    return report


REPORTS = {f.__name__: f for f in (example, many_layers, one_layer, partial, hostile)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this file."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each report."""
    folder = tmp_path_factory.mktemp("pages")
    for name, make in REPORTS.items():
        write_html(make(), folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in REPORTS}


# -- without a browser -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_page_is_self_contained(name: str) -> None:
    page = render_html(REPORTS[name]())
    # but for the namespace of inline SVG, no address stands in the page
    assert not re.search(r"""(?:src|href|action|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", page)
    assert page.count("<script>") == 1 and "<img" not in page


def test_hostile_text_is_escaped() -> None:
    page = render_html(hostile())
    assert HOSTILE not in page and "<script>document" not in page
    assert "{{7*7}}" in page and "&lt;script&gt;document" in page


def test_labels_of_histograms_stand_apart() -> None:
    for entry in example()["histograms"]:
        ticks = histogram(entry).ticks
        for left, right in zip(ticks, ticks[1:], strict=False):
            # half of each label, 6 units for a digit
            assert right.at - left.at >= 6 * (len(left.label) + len(right.label)) / 2, entry["title"]


# -- in Chromium -------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("name", REPORTS)
def test_no_errors_no_network_no_overflow(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    for width in (PHONE, 1280):
        browser.open(pages[name], width=width)
        console, asked = browser.logs()
        assert console == []
        assert [a for a in asked if not a.startswith(("file:", "data:", "about:"))] == []
        # a scroll bar takes its width from the window
        assert browser.script("return document.documentElement.scrollWidth") <= width
    assert browser.driver.title.startswith(("A real difference", "No difference"))
    rows = browser.script("return document.querySelectorAll('#ledger tbody tr').length")
    assert rows == len(REPORTS[name]()["layers"])


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, 1280])
def test_every_text_is_readable(dark: bool, width: int, browser: Browser, pages: dict[str, Path]) -> None:
    for name in ("example", "partial"):
        browser.open(pages[name], width=width, dark=dark)
        found = browser.contrasts()
        assert len(found) > 100
        assert [text for ratio, text in found if ratio < READABLE] == []
    back = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", back))) < 64) == dark


def shown(browser: Browser) -> list[str]:
    """Names of the layers that the ledger shows."""
    text = (
        "return [...document.querySelectorAll('#ledger tbody tr')].filter(r => r.offsetParent !== null)"
        ".map(r => r.querySelector('th').firstChild.data.trim())"
    )
    return list(browser.script(text))


@pytest.mark.browser
def test_filters_by_mouse(browser: Browser, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    browser.open(pages["example"])
    layers = example()["layers"]
    assert shown(browser) == [layer["name"] for layer in layers]
    Select(browser.driver.find_element(By.NAME, "verdict")).select_by_value("refused")
    refused = [layer["name"] for layer in layers if layer["verdict"] == "refused"]
    assert shown(browser) == refused and 0 < len(refused) < len(layers)
    status = browser.driver.find_element(By.ID, "count")
    assert status.text == f"{len(refused)} of {len(layers)} layers shown"
    # a link from the divergences shows its layer, whatever the filters hide
    browser.driver.find_element(By.CSS_SELECTOR, "a[href^='#layer-']").click()
    browser.driver.implicitly_wait(0)
    first = layers[example()["divergences"][0]["index"]]["name"]
    wait_until(lambda: first in shown(browser))
    Select(browser.driver.find_element(By.NAME, "verdict")).select_by_value("converted")
    browser.driver.find_element(By.NAME, "text").send_keys("no such layer")
    assert shown(browser) == [] and browser.driver.find_element(By.ID, "none").is_displayed()
    browser.driver.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    wait_until(lambda: len(shown(browser)) == len(layers))
    box = browser.driver.find_element(By.CSS_SELECTOR, "#series input")
    box.click()
    assert browser.script("return getComputedStyle(document.querySelector('g[data-series=\"0\"]')).display") == "none"


def wait_until(condition: Any) -> None:
    """Poll up to five seconds."""
    import time

    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "the page did not change"
        time.sleep(0.02)


@pytest.mark.browser
def test_keyboard_alone(browser: Browser, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.open(pages["example"])

    def press(*keys: str) -> None:
        ActionChains(browser.driver).send_keys(*keys).perform()

    press(Keys.TAB)
    assert browser.script("return document.activeElement.className") == "skip"
    assert browser.script("return document.activeElement.getBoundingClientRect().left") >= 0
    reached = set()
    for _ in range(40):
        press(Keys.TAB)
        name = browser.script("return document.activeElement.name || document.activeElement.type || ''")
        reached.add(name)
        outline = "const e = document.activeElement; return e === document.body || getComputedStyle(e).outlineStyle"
        assert browser.script(outline) != "none", "the focus cannot be seen"
        if name == "text":
            break
    assert "text" in reached
    press("depthwise")
    wanted = [layer["name"] for layer in example()["layers"] if "depthwise" in json.dumps(layer)]
    assert shown(browser) == wanted and 0 < len(wanted) < len(example()["layers"])
    press(Keys.TAB)
    assert browser.script("return document.activeElement.name") == "verdict"
    press("r")  # the option that begins so
    assert browser.script("return document.activeElement.value") == "refused"
    press(Keys.TAB, Keys.TAB, Keys.TAB, Keys.ENTER)
    wait_until(lambda: len(shown(browser)) == len(example()["layers"]))


@pytest.mark.browser
@pytest.mark.parametrize("name", ["example", pytest.param("many_layers", marks=pytest.mark.slow)])
def test_prints(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages[name], dark=True)
    document = browser.pdf()
    assert document.startswith(b"%PDF-")
    pages_printed = len(re.findall(rb"/Type\s*/Page\b", document))
    # a page of paper holds no fewer than five layers, and no more than fifty
    layers = len(REPORTS[name]()["layers"])
    assert max(3, layers / 50) <= pages_printed <= 6 + layers / 5
    # on paper nothing is white on black
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert min(ratio for ratio, _ in browser.contrasts()) >= READABLE
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.browser
def test_ledger_fits_a_desktop(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["example"], width=1440)
    text = "const e = document.querySelector('#ledger').parentElement; return e.scrollWidth - e.clientWidth"
    assert browser.script(text) <= 0


@pytest.mark.browser
def test_hostile_names_run_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    assert "owned" != browser.driver.title
    assert browser.script("return document.querySelectorAll('img, #ledger script').length") == 0
    assert shown(browser)[0] == HOSTILE + example()["layers"][0]["name"]
