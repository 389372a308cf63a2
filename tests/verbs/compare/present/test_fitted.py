"""The verdict on a terminal: five lines, whatever was found and however long the names are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from amct_onnx.common.short_names import distinct
from amct_onnx.verbs.compare.explain.doubts import Doubt, clipped_input, preparation
from amct_onnx.verbs.compare.measure.accuracy import Accuracy
from amct_onnx.verbs.compare.present.fitted import LIMITS, fitted, laid_out
from amct_onnx.verbs.compare.present.found import Found
from amct_onnx.verbs.compare.present.screen import VERDICT_ROWS, verdict_lines
from amct_onnx.verbs.compare.present.verdict import verdict
from amct_onnx.verbs.compare.report import Divergence, Metric, ModelEntry

REST = "See also: all findings with -v, everything with --report FILE.html or --json."
SHORT_REST = "See -v, --report, --json."
DEVICES = ("reference", "a2", "310p", "310", "ascend950")
DOUBTS = (
    preparation(
        "Input 'image' goes from 0 to 255, the first quantizer covers 0 to 1 (first 64 samples): were pixels of 0 to "
        "255 not scaled as in training (--image_scale, else divide by 255)?"
    ),
    clipped_input("51 % of the input lies outside the range of the first quantizer (0 to 1, layer '/stem/Conv')."),
    Doubt("the source itself is random, so no figure can be judged", "Two runs differ.", "export it again."),
)
NAMES = st.one_of(
    st.sampled_from(["conv1", "a name with blanks", "/主干网络/卷积层_1/Conv"]),
    st.integers(50, 500).map(lambda n: f"/backbone/{'stage.block/' * (n // 12)}Conv_{n}"),
    st.text(alphabet="ab/._", min_size=70, max_size=300),
)


def divergence(model: str, name: str, index: int, cause: str) -> Divergence:
    text = (
        f"'{name}' of {model} differs by 12.3 LSB on average in channel 7 (3 of 64 channels are wrong) from what the "
        "source makes of the same input; quantization explains at most 0.5 LSB. It is neither a constant nor a factor."
    )
    advice = "Compare its weights with the source's. Convert the source again, and use the models as written."
    return Divergence(model, name, index, cause, text, advice, 1.0, 0.1, node=f"{name}.Relu")


@st.composite
def founds(draw: st.DrawFn) -> tuple[Found, list[str]]:
    names = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    devices = draw(st.sampled_from([DEVICES[:1], DEVICES[:2], DEVICES]))
    keys = ["fake-quant", *(f"deploy@{d}" for d in devices)]
    causes = draw(st.lists(st.sampled_from(["", "weight-fault", "node-missing", "ties"]), min_size=1, max_size=6))
    made = [
        divergence(key, names[i % len(names)], i % len(names), cause)
        for i, (key, cause) in enumerate(zip(keys, causes, strict=False))
        if cause
    ]
    metric = Metric("top-1", 0.9, 58, 64, 0.8, 0.95)
    models = [
        ModelEntry(k, "f", metrics=(metric if k == "source" else replace(metric, least_loss=-0.07, most_loss=0.07),))
        for k in ("source", *keys)
    ]
    found = Found(
        models=models,
        outputs=(),
        divergences=made,
        layers=(),
        accuracy={k: Accuracy(64, {"top-1": 58}) for k in ("source", *keys)},
        warnings=draw(st.sampled_from([(), ("Float model: its outputs are matched by their order.",)])),
        complete=draw(st.booleans()),
        not_judged=draw(st.sampled_from([(), (f"In deploy@a2, what makes '{names[0]}': nothing bounds it.",)])),
        max_drop=draw(st.sampled_from([None, -1.0, 0.5, 9.0])),
        doubts=draw(st.lists(st.sampled_from(DOUBTS), max_size=2, unique=True)),
    )
    return found, names


@settings(max_examples=30)
@given(founds(), st.sampled_from([60, 80, 120, 10_000]))
def test_any_verdict_takes_five_lines(drawn: tuple[Found, list[str]], width: int) -> None:
    found, names = drawn
    said = verdict(found)
    texts = [said.headline, *said.brief, REST]
    lines = verdict_lines(said, names, width, REST, SHORT_REST)
    assert sum(map(len, lines)) <= VERDICT_ROWS and len(lines) == len(texts)
    words = {w.strip("'\"()[],.;:?") for t in (*texts, SHORT_REST) for w in t.split()}
    for text, rows in zip(texts, lines, strict=True):
        assert all(cell_len(row) <= width for row in rows)
        shown = " ".join(rows)
        assert shown.count("(") == shown.count(")")
        for word in {w.strip("'\"()[],.;:?") for w in shown.split()} - words - {"…"}:  # else no word is split
            parts = word.split("…")
            assert len(parts) > 1 and any(n.startswith(parts[0]) and n.endswith(parts[-1]) for n in words), word
        assert rows or text.startswith("Where: ") or text == REST
        if text.startswith("Why: ") and "12.3 LSB" in text:
            assert "differs by 12.3 LSB on average in channel 7" in shown
    assert " ".join(sum(lines, [])).endswith((REST, SHORT_REST))
    assert said.level != "noise" or not found.doubts
    if found.doubts:
        assert found.doubts[0].headline in said.headline


KEPT = "top-1 90.0 % → fake-quant 90.0 %, deploy@a2 80.0 %"


@pytest.mark.parametrize(
    ("max_drop", "said"),
    [
        (1.0, f"Accuracy: deploy@a2 loses 10 points of top-1, limit 1; {KEPT}."),
        (20.0, f"Accuracy: {KEPT}, limit of a loss 20 points."),
        (None, f"Accuracy: {KEPT}."),
    ],
)
def test_a_fault_says_what_it_costs(max_drop: float | None, said: str) -> None:
    shares = {"source": 0.9, "fake-quant": 0.9, "deploy@a2": 0.8}
    models = [ModelEntry(k, "f", metrics=(Metric("top-1", v, int(100 * v), 100),)) for k, v in shares.items()]
    faults = [divergence("deploy@a2", "conv", 0, "weight-fault")]
    found = Found(models, (), faults, (), {k: Accuracy(100, {"top-1": 1}) for k in shares}, max_drop=max_drop)
    assert said in verdict(found).brief and verdict(replace(found, accuracy={})).level == "diverges"


STAGES = [f"/model/backbone/stages/stage_{i}/block_3/projection/inner" for i in range(6)]
"""Names of 56 characters, alike at both ends."""


@pytest.mark.parametrize("size", [10, 40, 78, 400])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_fact_stands_and_two_names_stay_different(size: int, width: int) -> None:
    stems = [f"/n{i}" for i in range(6)] if size == 10 else [s[-30:] if size == 40 else s for s in STAGES]
    names = [f"{s}{'/part' * ((size - len(s) - 5) // 5)}/{op}" for s in stems for op in ("Conv", "Relu")]
    layer, node = names[6], names[5]
    texts = [
        f"deploy@a2 goes wrong before layer '{layer}' (node-replaced: '{node}').",
        f"Where: before layer 3, '{layer}' ({node}).",
        "Accuracy: deploy@a2 loses 5.83 points of top-1, limit 1; top-1 99.2 % → 93.4 %.",
        f"Why: '{node}' is Relu in the source and Neg in the deploy model. Its neighbours are as they were.",
        "What to do: Convert the source again, and use the models as they were written.",
        REST,
    ]
    headline, _, accuracy, why, todo, rest = (
        " ".join(rows) for rows in laid_out(texts, width, VERDICT_ROWS, names, SHORT_REST)
    )
    assert headline.startswith("deploy@a2 goes wrong before layer '") and headline.endswith(".")
    assert "loses 5.83 points of top-1, limit 1" in accuracy
    assert "' is Relu in the source and Neg in the deploy model." in why
    assert todo.startswith("What to do: Convert the source") and f"{todo}{rest}".endswith((SHORT_REST, REST))
    told = [t.split("'")[1] for t in (headline, why)]
    assert all(name in {n for limit in LIMITS for n in distinct(names, limit).values()} for name in told)
    assert told[0].endswith("Conv") and told[1].endswith("Relu")
    assert ("n3/" if size == 10 else "_3/") in told[0] and ("n2/" if size == 10 else "_2/") in told[1]


def test_no_bracket_and_no_quotation_stays_open() -> None:
    text = "Why: one (two three four) five 'six seven eight nine ten' eleven, twelve."
    for width in range(12, 60):
        (line,) = fitted(text, width, 1)
        assert line.count("(") == line.count(")") and line.count("'") % 2 == 0, line


@pytest.mark.parametrize("rows", [1, 2])
def test_what_is_left_out_shows(rows: int) -> None:
    text = "Why: one two three four five six seven eight nine ten eleven twelve."
    lines = fitted(text, 20, rows)
    assert len(lines) == rows and lines[-1].endswith(" …") and text.startswith(" ".join(lines)[:-2])
    assert fitted(text, 200, rows) == [text]


def test_a_sentence_is_left_whole() -> None:
    text = "What to do: Check the scales of the quantizer. Convert the source again, and use the models as they are."
    assert fitted(text, 60, 1) == ["What to do: Check the scales of the quantizer. …"]


def test_names_that_differ_in_their_middle_stay_apart() -> None:
    names = [f"/{'block/' * 20}{i}/{'conv/' * 20}out" for i in range(2)]
    short = distinct(names, 20)
    assert len(set(short.values())) == 2
    assert fitted(f"It is '{names[0]}'.", 300, 1, names) == [f"It is '{distinct(names)[names[0]]}'."]


@pytest.mark.parametrize("width", [60, 80])
def test_what_a_healthy_run_keeps_is_said_on_few_columns(width: int) -> None:
    headline = (
        "No fault found. fake-quant and deploy@a2 follow the source as closely as their int8 arithmetic allows: top-1 "
        "99.2 % → 99.2 %."
    )
    few = (
        "360 samples are too few to tell a loss of 1 point of top-1 (95 % intervals: fake-quant and deploy@a2 lose "
        "-1.21 to 1.21 points). About 440 would do."
    )
    lines = laid_out([headline, few, REST], width, 5, (), SHORT_REST)
    assert " ".join(lines[0]) == headline and lines[1] and sum(map(len, lines)) <= 5
