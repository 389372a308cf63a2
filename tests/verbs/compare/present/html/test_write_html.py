"""The page of a comparison in a real browser: one file, nothing from the network, usable by everybody."""

from __future__ import annotations

import copy
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amct_onnx.common.plain_text import escaped
from amct_onnx.device.profiles import PROFILES
from amct_onnx.verbs.compare.present.figures import figure
from amct_onnx.verbs.compare.present.html.charts import PAPER_LAYERS, histogram, layer_panels
from amct_onnx.verbs.compare.present.html.write_html import MARKS, render_html, write_html
from support.browser import Browser, chromium

EXAMPLE = Path(__file__).parents[4] / "data" / "compare_report.json"
HOSTILE = "</script></title><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'{{7*7}}"
HOSTILE += "\u202e\u2028\x1b[2J\x00"
READABLE = 4.5
"""Least contrast of text, WCAG 2.1 level AA."""
PHONE = 360


def example() -> dict[str, Any]:
    report: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return report


def many_layers(count: int = 150) -> dict[str, Any]:
    """Layers of a network with long names, the faulty one's and its nodes' of 400 characters."""
    report = example()
    layers = report["layers"]
    report["layers"] = [copy.deepcopy(layers[i % len(layers)]) for i in range(count)]
    for index, layer in enumerate(report["layers"]):
        layer["name"] = f"/backbone/stages.{index // 50}/blocks.{index % 50}/attention/output/dense/MatMul_{index}"
    faulty = report["layers"][104]
    faulty["name"] = f"/{'a_long_module_name/' * 20}Conv".ljust(400, "_")
    for node in (*faulty["source_nodes"], *faulty["deploy_nodes"]):
        node["name"] = faulty["name"] if node["layer"] else f"{faulty['name']}.{node['op_type']}"
    for divergence in report["divergences"]:
        divergence["index"], divergence["layer"] = 104, faulty["name"]
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
def test_page_is_self_contained(name: str, pages: dict[str, Path]) -> None:
    page = pages[name].read_text(encoding="utf-8")
    # but for the namespace of inline SVG, no address stands in the page
    assert not re.search(r"""(?:src|href|action|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", page)
    assert page.count("<script>") == 1 and "<img" not in page


def test_hostile_text_is_escaped(pages: dict[str, Path]) -> None:
    page = pages["hostile"].read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\u2028-\u202e]", page)
    assert HOSTILE not in page and "<script>document" not in page
    assert "{{7*7}}" in page and "&lt;script&gt;document" in page


def test_only_faults_are_red_and_name_their_model() -> None:
    """Noise marks nothing in the charts; the source differs from itself by nothing, in no metric."""
    report = example()
    page = render_html(report)
    marked = f"deploy@a2, deploy@310p: at 5 {report['divergences'][0]['layer']}"
    # in both charts and in the ledger; the second fault of the same layer is the same mark
    assert page.count(marked) == 3 and page.count('firstline"') == 2
    assert page.count("badge diverges") == 2
    for divergence in report["divergences"]:
        divergence["cause"] = "ties"
    report["verdict"].update(
        level="noise", sentences=["Something else.", f"deploy@a2: {report['divergences'][0]['text']}"]
    )
    calm = render_html(report)
    body = calm[calm.index("<body>") :]
    assert body.count("Something else.") == 1 and "Where rounding begins to show" in body
    assert "<p>deploy@a2: " not in body, "what a divergence says is said once"
    assert not re.search(r'class="[^"]*\b(?:wrong|diverges|name|firstline|first)\b', body)
    source = body[body.index('id="accuracy"') :].split("</tr>")[1]
    assert "points" not in source and "points" in body[body.index('id="accuracy"') :].split("</tr>")[2]


def test_details_stay_within_their_budget(pages: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """150 layers of three models; beyond the budget the faulty layer and the worst ones are kept."""
    assert pages["many_layers"].stat().st_size < 3_000_000
    monkeypatch.setattr("amct_onnx.verbs.compare.present.html.write_html.DETAILS_SIZE", 100_000)
    page = render_html(many_layers())
    details = re.findall(r'id="detail-(\d+)"', page)
    assert 5 < len(details) < 20 and "104" in details
    assert f"The {len(details)} layers with faults and" in page


def test_labels_of_histograms_stand_apart() -> None:
    for entry in example()["histograms"]:
        ticks = histogram(entry).ticks
        for left, right in zip(ticks, ticks[1:], strict=False):
            # half of each label, 6 units for a digit
            assert right.at - left.at >= 6 * (len(left.label) + len(right.label)) / 2, entry["title"]


def test_figures_are_decimal_where_that_is_short() -> None:
    shown = [figure(v) for v in (0.0, -1080.4, 169.0, 999_999.0, 1e6, 2.5e-7)]
    assert shown == ["0", "-1080", "169", "1000000", "1e+06", "2.5e-07"]
    assert figure(169, 2) == "170"


def test_every_device_has_its_own_mark() -> None:
    """The fake-quant model and a deploy model on each device, in colour, shape and dashes."""
    assert len(PROFILES) + 1 <= MARKS
    report = example()
    model = report["models"][-1]
    report["models"] = [report["models"][0], *({**model, "key": f"m{i}"} for i in range(MARKS))]
    for layer in report["layers"]:
        layer["differences"] = [{**layer["differences"][-1], "model": f"m{i}"} for i in range(MARKS)]
    page = render_html(report)
    legend = page[page.index('id="series"') : page.index("</fieldset>")]
    shapes = {re.sub(r"[\d.]+", "0", s) for s in re.findall(r'<(?:circle|rect|path)[^>]*class="mark"[^>]*>', legend)}
    assert len(shapes) == MARKS
    style = page[page.index("<style>") : page.index("</style>")]
    for theme in re.findall(r"--s0:[^}]*}", style):
        colours = re.findall(r"--s\d: (#\w+)", theme)
        assert len(set(colours)) == MARKS
    dashes = dict(re.findall(r"\.s(\d) \.line \{ stroke-dasharray: ([^;]*);", style))
    assert len(set(dashes.values())) == MARKS - 1


# -- in Chromium -------------------------------------------------------------------------------------------------------


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


def test_long_networks_are_cut_for_paper() -> None:
    """Each layer stands in one piece, under its own number; the pieces of a chart share scale and width."""
    report = many_layers(9 * PAPER_LAYERS + 1)
    for whole, *pieces in layer_panels(report):
        assert len(pieces) == 10
        assert {(p.width, p.rows) for p in pieces} == {(pieces[0].width, whole.rows)}
        for number in range(len(whole.series)):
            marks = [(m.text, m.y) for p in pieces for m in p.series[number].marks]
            assert marks == [(m.text, m.y) for m in whole.series[number].marks]
        assert [n.label for p in pieces for n in p.first] == [n.label for n in whole.first]
    assert all(len(pieces) == 1 for pieces in layer_panels(example()))


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
    wait_until(file.exists)
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
