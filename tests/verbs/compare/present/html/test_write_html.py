"""The page of a comparison as text: one file, escaped, bounded, red for faults only."""

from __future__ import annotations

import re

import pytest

from amct_onnx.device.profiles import PROFILES
from amct_onnx.verbs.compare.present.figures import figure
from amct_onnx.verbs.compare.present.html.charts import PAPER_LAYERS, fault_labels, histogram, layer_panels
from amct_onnx.verbs.compare.present.html.write_html import MARKS, breakable, render_html
from support.comparison_reports import HOSTILE, REPORTS, example, hostile, many_layers


@pytest.mark.parametrize("name", REPORTS)
def test_page_is_self_contained(name: str) -> None:
    page = render_html(REPORTS[name]())
    # but for the namespace of inline SVG, no address stands in the page
    assert not re.search(r"""(?:src|href|action|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", page)
    assert page.count("<script>") == 1 and "<img" not in page


def test_hostile_text_is_escaped() -> None:
    page = render_html(hostile())
    assert not re.search("[\x00-\x08\x0b-\x1f\u2028-\u202e]", page)
    assert HOSTILE not in page and "<script>document" not in page
    assert "{{7*7}}" in page and "&lt;script&gt;document" in page


def test_only_faults_are_red_and_name_their_model() -> None:
    """Noise marks nothing in the charts; the source differs from itself by nothing, in no metric."""
    report = example()
    page = render_html(report)
    marked = "deploy@a2, deploy@310p: at 5"
    # in both charts, below them and in the ledger; the second fault of the same layer is the same mark
    assert page.count(marked) == 4 and page.count('firstline"') == 2
    assert page.count("badge diverges") == 1, "what two models have alike is told once"
    assert "<h3>deploy@a2, deploy@310p: at " in page
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


def test_cost_stands_in_one_table() -> None:
    report = example()
    page = render_html(report)
    table = page[page.index('id="cost"') :].split("</table>")[0]
    assert "1\u202f249\u202f760" in table and "1\u202f286\u202f624 and those of 2 operators of unknown work" in table
    assert "4\u202f336 elements" in table and "each free axis counts as 1: N." in page
    assert "10\u202f240 elements" in table and '<td class="n" data-label="Number">5</td>' in table
    assert "<li>5 float operators for 10,240 elements would go: at " in page
    assert "op_types_to_quantize=[&#39;Conv&#39;] would do." in page
    assert "<li>2 AscendQuant and 2 AscendAntiQuant for 8,192 elements would go: at " in page
    report["cost"] = None  # of a ledger without
    assert "Cost on a device" not in render_html(report)


def test_many_quantizers_fold_and_are_counted() -> None:
    report = example()
    assert "<details open><summary>Each of them" in render_html(report)
    report["residuals"] = [report["residuals"][0]] * 200
    page = render_html(report)
    assert f"what became of them: 200 {report['residuals'][0]['action']}." in page
    assert "<details><summary>Each of them" in page


def test_details_stay_within_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """150 layers of three models; beyond the budget the faulty layer and the worst ones are kept."""
    assert len(render_html(many_layers()).encode()) < 3_000_000
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


def test_models_without_a_fault_stand_apart() -> None:
    """Beside a fault of the deploy models, the rounding of the fake-quant model is none of what goes wrong."""
    report = example()
    calm = {**report["divergences"][0], "model": "fake-quant", "cause": "ties", "text": "Rounds otherwise."}
    report["divergences"].append(calm)
    page = render_html(report)
    wrong = page[page.index('id="h-first"') : page.index('id="h-calm"')]
    assert "fake-quant" not in wrong and "deploy@a2, deploy@310p: at" in wrong
    after = page[page.index('id="h-calm"') :]
    assert after.startswith('id="h-calm">fake-quant: no fault<') and "Rounds otherwise." in after


def test_places_of_one_layer_are_told_apart() -> None:
    report = example()
    report["divergences"][0]["place"] = "before"
    (label,) = fault_labels(report).values()
    assert label == "deploy@a2: before; deploy@310p: at 5"
    report["divergences"] = [{**report["divergences"][0], "model": m["key"]} for m in report["models"][1:]]
    assert list(fault_labels(report).values()) == [f"{report['models'][1]['key']} +2: before 5"]


def test_names_on_the_page_stay_different() -> None:
    report = many_layers(110)
    names = [f"/backbone/stages/stage_{i}/blocks/block_{i:03}{'/inner' * 60}/projection/Conv" for i in range(110)]
    for layer, name in zip(report["layers"], names, strict=True):
        layer["name"] = name
    page = render_html(report)
    shown = dict(re.findall(r'<summary>\d+ <span title="([^"]*)">(.*?)</span>', page))
    texts = [text.replace("<wbr>", "") for text in shown.values()]
    assert sorted(shown) == sorted(names) and len(set(texts)) == len(names) and max(map(len, texts)) < 80


def test_lines_end_within_long_words_alone() -> None:
    assert breakable("at layer /pw.0/Conv of <b>") == "at layer /pw.0/Conv of &lt;b&gt;"
    long = "/a_long_module/with_parts/Conv_1"
    assert breakable(long).split("<wbr>") == ["/a_", "long_", "module/", "with_", "parts/", "Conv_", "1"]
