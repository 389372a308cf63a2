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
from amct_onnx.verbs.compare.present.fitted import fitted
from amct_onnx.verbs.compare.present.screen import VERDICT_ROWS, verdict_lines
from amct_onnx.verbs.compare.present.verdict import Found, verdict
from amct_onnx.verbs.compare.report import Divergence, Metric, ModelEntry

REST = "See also: all findings with -v, everything with --report FILE.html or --json."
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
    lines = verdict_lines(said, names, width, REST)
    assert sum(map(len, lines)) <= VERDICT_ROWS
    for text, rows in zip(texts, lines, strict=True):
        assert all(cell_len(row) <= width for row in rows)
        words = {w.strip("'\"()[],.;:") for w in text.split()}
        for word in " ".join(rows).split():
            core = word.strip("'\"()[],.;:")
            assert core in words or "…" in core  # no word is split
            if "…" in core[:-1] and len(core) > 1:
                start, _, end = core.partition("…")
                assert len([n for n in names if n.startswith(start) and n.endswith(end)]) <= 1  # none looks like it
    assert said.level != "noise" or not found.doubts
    if found.doubts:
        assert found.doubts[0].headline in said.headline


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
