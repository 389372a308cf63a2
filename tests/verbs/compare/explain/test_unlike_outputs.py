"""A source that makes large differences of rounding is no all-clear, though every layer agrees by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import amct_onnx
from amct_onnx.verbs.compare.explain.unlike_outputs import unlike_outputs
from amct_onnx.verbs.compare.report import Difference, OutputEntry
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support.comparison_cases import as_of_other_code
from support.golden_models import MODELS
from support.qdq_builder import QdqBuilder

WIDTH, DEPTH = 16, 12


def chaotic(folder: Path) -> Path:
    """Layers whose results go through a sine of many periods: a small error grows in each."""
    random = np.random.default_rng(0)
    b = QdqBuilder()
    x = b.input("x", ["N", WIDTH])
    for _ in range(DEPTH):
        weight = b.weight(random.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8), 0.01)
        x = b.node("MatMul", [b.activation(x, 1 / 127, np.int8(0)), weight])
        x = b.node("Sin", [b.node("Mul", [x, b.constant(np.float32(9))])])
    b.output(x)
    return b.save(folder)


def test_models_that_do_not_resemble_a_chaotic_source_are_no_all_clear(tmp_path: Path) -> None:
    source = chaotic(tmp_path)
    amct_onnx.convert_qat_model(source, tmp_path / "m")
    data = {"x": np.random.default_rng(1).uniform(-1, 1, (8, WIDTH)).astype(np.float32)}
    found = amct_onnx.compare(source, tmp_path / "m", data)
    assert not [d for d in found.divergences if d.is_fault]
    (output,) = found.outputs
    assert min(d.sqnr_db for d in output.differences if d.sqnr_db is not None) < 10
    assert found.verdict.level == "incomplete"
    assert found.verdict.headline.startswith("Incomplete: no layer is wrong by itself, but ")
    assert found.verdict.headline.endswith(" not resemble the source.")
    assert "SQNR " in found.verdict.brief[0] and found.verdict.brief[1].startswith("What to do: give labels")
    as_of_other_code(read_ledger(tmp_path / "m").path)
    found = amct_onnx.compare(source, tmp_path / "m", data)
    assert found.verdict.headline == (
        "Incomplete: fake-quant and deploy@a2 do not resemble the source, and 1 part of the models could not be judged."
    )
    assert found.verdict.brief[1].startswith("Not judged: whether the files are what the conversion writes")


def entry(lsb: float | None, sqnr: float | None, mean_lsb: float | None, model: str = "fake-quant") -> OutputEntry:
    return OutputEntry("y", lsb, (Difference(model, 8, 1.0, 1.0, mean_lsb, mean_lsb, None, 0.5, sqnr, False),))


@pytest.mark.parametrize(
    ("output", "dtype", "named"),
    [
        (entry(None, 9.9, None), np.float32, True),
        (entry(None, 10.0, None), np.float32, False),
        (entry(None, None, None), np.float32, False),
        (entry(None, 0.1, None), np.int64, False),  # classes or places
        (entry(1.0, 0.1, 5.0), np.int8, True),
        (entry(0.1, 0.1, 0.5), np.float32, False),  # hardly any signal: half a step
        (entry(None, 0.1, None, "float"), np.float32, False),  # the float model is not judged
    ],
)
def test_outputs_that_count(output: OutputEntry, dtype: type, named: bool) -> None:
    assert bool(unlike_outputs([output], {"y": np.zeros(8, dtype)})) == named


def test_quantizers_that_were_dropped_are_the_reason(tmp_path: Path) -> None:
    """The user asked for other numbers: how far they lie is said, and the source is not blamed."""
    model = MODELS / "torchfx_miscA_i8sym_op17_nofold"
    amct_onnx.convert_qat_model(model / "model.onnx", tmp_path / "m", residual_quantizers="drop")
    found = amct_onnx.compare(model / "model.onnx", tmp_path / "m", model / "inputs.npz").verdict
    assert found.level == "incomplete" and "were dropped on request (residual_quantizers drop)" in found.brief[0]


def test_quantizers_that_were_dropped_are_named_where_outputs_resemble_the_source(tmp_path: Path) -> None:
    """One pair of steps of 2^-2 behind the last layer: no int8 arithmetic is the reason of what differs."""
    random = np.random.default_rng(0)
    b = QdqBuilder()
    x = b.input("x", ["N", WIDTH])
    weight = b.weight(random.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8), 2.0**-7)
    y = b.node("MatMul", [b.activation(x, 2.0**-7, np.int8(0)), weight])
    b.output(b.node("Neg", [b.activation(y, 2.0**-2, np.int8(0))]))
    source = b.save(tmp_path)
    data = {"x": random.uniform(-1, 1, (8, WIDTH)).astype(np.float32)}
    amct_onnx.convert_qat_model(source, tmp_path / "m", residual_quantizers="drop")
    found = amct_onnx.compare(source, tmp_path / "m", data).verdict
    assert found.level == "noise" and "out 1 quantizer of the source, as asked" in found.headline
    assert found.brief[0].startswith("Why: SQNR ") and "1 quantizer was dropped on request" in found.brief[0]
    assert found.brief[1].startswith("What to do: give labels")
