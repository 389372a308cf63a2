"""The page of a comparison in a real browser: nothing from the network, usable by everybody."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amct_onnx.common.plain_text import escaped
from amct_onnx.verbs.compare.present.html.write_html import write_html
from support.browser import Browser, chromium
from support.comparison_reports import HOSTILE, REPORTS, example, many_layers

READABLE = 4.5
"""Least contrast of text, WCAG 2.1 level AA."""
PHONE = 360


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


@pytest.mark.browser
def test_a_chart_that_scrolls_shows_its_fault_and_its_scale(browser: Browser, tmp_path: Path) -> None:
    """On a phone, of 200 layers: no label is cut, and the page does not grow with the layers."""
    report = many_layers(200)
    report["divergences"] = [{**report["divergences"][0], "index": 120, "layer": report["layers"][120]["name"]}]
    write_html(report, tmp_path / "page.html")
    browser.open(tmp_path / "page.html", width=390)
    wait_until(lambda: browser.script("return document.querySelector('.panel.scroll').scrollLeft > 0"))
    cut = """return [...document.querySelectorAll('.panel.scroll')].flatMap(box => [...box.querySelectorAll(
      '.name, .axis text')].filter(e => {
        const [a, b] = [e, box].map(x => x.getBoundingClientRect());
        return a.left < b.left - 1 || a.right > b.right + 1; }).map(e => e.textContent));"""
    wait_until(lambda: browser.script(cut) == [])
    assert browser.script("return document.documentElement.scrollHeight") < 35_000
    assert browser.script("return document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
@pytest.mark.parametrize("name", REPORTS)
def test_no_errors_no_network_no_overflow(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    for width in (PHONE, 1280) if name in ("example", "many_layers") else (PHONE,):
        browser.open(pages[name], width=width)
        browser.script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        console, asked = browser.logs()
        assert console == []
        assert [a for a in asked if not a.startswith(("file:", "data:", "about:"))] == []
        # a scroll bar takes its width from the window
        assert browser.script("return document.documentElement.scrollWidth") <= width
    assert browser.driver.title.startswith(("A real difference", "No difference"))
    rows = browser.script("return document.querySelectorAll('#ledger tbody tr').length")
    assert rows == len(REPORTS[name]()["layers"])


OVERLAPS = """
const boxes = [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility())
  .map(e => [e.closest("svg"), e.getBoundingClientRect(), e.textContent]);
return boxes.flatMap(([svg, a, text], i) => boxes.slice(i + 1)
  .filter(([other, b]) => other === svg && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
  .map(([, , second]) => [text, second]));
"""


@pytest.mark.browser
def test_names_above_a_chart_stand_apart(browser: Browser, tmp_path: Path) -> None:
    """Neighbours, and long names from both sides that meet in the middle."""
    report = many_layers()
    report["layers"] = report["layers"][:53]
    report["layers"][0]["name"] = "n" * 400
    report["divergences"] = [
        {**report["divergences"][0], "index": i, "layer": report["layers"][i]["name"]} for i in (0, 2, 3, 40, 52)
    ]
    write_html(report, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    names = "return [...document.querySelectorAll('.name')].filter(e => e.checkVisibility()).length"
    assert browser.script(names) == 2 * len(report["divergences"])
    assert browser.script(OVERLAPS, ".panel text") == []
    outside = """return [...document.querySelectorAll(".name")].filter(e => e.checkVisibility()).filter(e => {
      const [a, b] = [e, e.closest("svg")].map(x => x.getBoundingClientRect());
      return a.left < b.left || a.right > b.right || a.top < b.top; }).map(e => e.textContent)"""
    assert browser.script(outside) == []


@pytest.mark.browser
@pytest.mark.parametrize("name", ["example", "many_layers"])
def test_charts_are_legible_on_paper(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    """Six points at least on the 182 mm between the margins of A4 (688 CSS pixels)."""
    browser.open(pages[name], width=688)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        sizes = browser.script(
            "return [...document.querySelectorAll('.panel svg')].filter(e => e.checkVisibility())"
            ".map(e => [e.viewBox.baseVal.width, e.getBoundingClientRect()])"
            ".map(([units, box]) => [box.width / units * 11, box.right])"
        )
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert sizes and all(size >= 8 and right <= 688 for size, right in sizes)


@pytest.mark.browser
@pytest.mark.parametrize("width", [PHONE, 688])
def test_labels_are_not_broken_inside_words(width: int, browser: Browser, pages: dict[str, Path]) -> None:
    """On a phone and on paper; "Bias error" in a column as narrow as a letter was tall as a page."""
    browser.open(pages["example"], width=width)
    media = "" if width == PHONE else "print"
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
    try:
        broken = browser.script(
            """return [...document.querySelectorAll("thead th, dt")].filter(e => e.checkVisibility()).flatMap(e => {
              const walker = document.createTreeWalker(e, NodeFilter.SHOW_TEXT), found = [];
              while (walker.nextNode()) for (const m of walker.currentNode.data.matchAll(/[A-Za-z_]+/g)) {
                const range = document.createRange();
                range.setStart(walker.currentNode, m.index);
                range.setEnd(walker.currentNode, m.index + m[0].length);
                if (new Set([...range.getClientRects()].map(r => r.top)).size > 1) found.push(m[0]);
              }
              return found; })"""
        )
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert broken == []


@pytest.mark.browser
@pytest.mark.parametrize(("name", "width", "dark"), [("example", PHONE, True), ("partial", 1280, False)])
def test_every_text_is_readable(name: str, width: int, dark: bool, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages[name], width=width, dark=dark)
    browser.script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    found = browser.contrasts()
    assert len(found) > 100
    assert [text for ratio, text in found if ratio < READABLE] == []
    back = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", back))) < 64) == dark


def shown(browser: Browser) -> list[str]:
    """Names of the layers that the ledger shows, whole."""
    text = """return [...document.querySelectorAll('#ledger tbody tr')].filter(r => r.offsetParent !== null).map(r => {
      const head = r.querySelector('th');
      return [...(head.querySelector('a') || head).childNodes].filter(n => n.nodeName !== 'SMALL')
        .map(n => n.title || n.textContent).join('').trim(); })"""
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
    # a link shows its layer, whatever the filters hide
    browser.script("location.hash = '#layer-4'")
    wait_until(lambda: layers[4]["name"] in shown(browser))
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


FOCUS = """const e = document.activeElement;
return [e.name || "", e === document.body || getComputedStyle(e).outlineStyle !== "none"];"""


@pytest.mark.browser
def test_keyboard_alone(browser: Browser, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.open(pages["example"])

    def press(*keys: str) -> None:
        ActionChains(browser.driver, duration=0).send_keys(*keys).perform()

    press(Keys.TAB)
    assert browser.script("return document.activeElement.className") == "skip"
    assert browser.script("return document.activeElement.getBoundingClientRect().left") >= 0
    browser.script("document.querySelector('#detail-3 summary').focus()")
    press(Keys.ENTER)
    assert browser.script("return document.getElementById('detail-3').open")
    for _ in range(40):
        press(Keys.TAB)
        name, seen = browser.script(FOCUS)
        assert seen, "the focus cannot be seen"
        if name == "text":
            break
    else:
        pytest.fail("the filter is not reached")
    press("depthwise")
    wanted = [layer["name"] for layer in example()["layers"] if "depthwise" in json.dumps(layer["name"])]
    assert shown(browser) == wanted and 0 < len(wanted) < len(example()["layers"])
    press(Keys.TAB)
    assert browser.script("return document.activeElement.name") == "verdict"
    press("r")  # the option that begins so
    assert browser.script("return document.activeElement.value") == "refused"
    press(*[Keys.TAB] * 4, Keys.ENTER)
    wait_until(lambda: len(shown(browser)) == len(example()["layers"]))
    press(*[Keys.TAB] * 4)  # the download, the table's box, the heads of the first two columns
    assert browser.script("return document.activeElement.closest('th').textContent") == "Layer"
    names = sorted(layer["name"] for layer in example()["layers"])
    for order, wanted in (("ascending", names), ("descending", names[::-1])):
        press(Keys.ENTER)
        assert browser.script("return document.activeElement.closest('th').ariaSort") == order
        assert shown(browser) == wanted


@pytest.mark.browser
def test_sorts_numbers_and_downloads_what_it_shows(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    """Unknown figures come last in both orders; the file holds the report's own numbers, and no formulas."""
    from selenium.webdriver.common.by import By

    browser.open(pages["many_layers"])
    layers = many_layers()["layers"]
    assert len(shown(browser)) < 60 and layers[104]["name"] in shown(browser)
    browser.script("document.querySelectorAll('#ledger .sort')[3].click()")
    scales = {layer["name"]: layer["scale_d"] for layer in layers}
    found = [scales[name] for name in shown(browser)]
    known = [s for s in found if s is not None]
    assert len(found) == len(layers) and known == sorted(known) and found[len(known) :] == [None] * found.count(None)
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    browser.driver.find_element(By.ID, "download").click()
    file = tmp_path / "compare_layers.csv"
    wait_until(lambda: file.exists() and file.stat().st_size > 0)  # empty until the whole file takes its place
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(r["name"], r["scale_d"]) for r in rows] == [
        (layer["name"], "" if layer["scale_d"] is None else repr(layer["scale_d"])) for layer in layers
    ]


@pytest.mark.browser
def test_layer_in_detail(browser: Browser, pages: dict[str, Path]) -> None:
    """The faulty layer is open, its names fit their boxes, and its whole name can be copied and pasted."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.open(pages["many_layers"], width=PHONE)
    assert browser.script("return [...document.querySelectorAll('.detail[open]')].map(d => d.id)") == ["detail-104"]
    outside = """return [...document.querySelectorAll("#detail-104 .node")].flatMap(g => {
      const box = g.querySelector("rect").getBoundingClientRect();
      return [...g.querySelectorAll("text")].filter(t => { const r = t.getBoundingClientRect();
        return r.left < box.left || r.right > box.right || r.bottom > box.bottom; }).map(t => t.textContent); })"""
    assert browser.script(outside) == []
    wrong = "return [...document.querySelectorAll('#detail-104 .wrong title')].map(t => t.textContent)"
    name = many_layers()["layers"][104]["name"]
    browser.script("location.hash = '#detail-7'")
    wait_until(lambda: browser.script("return document.getElementById('detail-7').open"))
    assert browser.script(wrong) == [f"Conv {name}: wrong in deploy@a2, deploy@310p"]
    browser.driver.find_element(By.CSS_SELECTOR, "#detail-104 .copy").click()
    assert browser.driver.find_element(By.CSS_SELECTOR, "#detail-104 .copy").text.startswith("Copied")
    browser.driver.find_element(By.NAME, "text").send_keys(Keys.CONTROL, "v")
    assert shown(browser) == [name]


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
    heads = "return [...document.querySelectorAll('thead th')].filter(e => !e.innerText.trim()).length"
    assert browser.script(heads) == 0
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.browser
def test_ledger_fits_a_desktop(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["example"], width=1440)
    text = "const e = document.querySelector('#ledger').parentElement; return e.scrollWidth - e.clientWidth"
    assert browser.script(text) <= 0


@pytest.mark.browser
def test_name_of_a_megabyte_does_not_fill_the_page(browser: Browser, tmp_path: Path) -> None:
    report = example()
    for layer in report["layers"]:
        layer["name"] = "n" * 10**6
    for divergence in report["divergences"]:
        divergence["layer"] = "n" * 10**6
    write_html(report, tmp_path / "page.html")
    browser.open(tmp_path / "page.html", width=PHONE)
    assert browser.script("return document.documentElement.scrollWidth") <= PHONE
    assert (tmp_path / "page.html").stat().st_size < 500_000


@pytest.mark.browser
def test_hostile_names_run_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    assert "owned" != browser.driver.title
    assert browser.script("return document.querySelectorAll('img, #ledger script').length") == 0
    assert shown(browser)[0] == escaped(HOSTILE) + example()["layers"][0]["name"]
