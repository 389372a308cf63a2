"""Outputs with as many elements as a comparison lets through: rounding tips some of them, and that is not a fault."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import amct_onnx
from amct_onnx.cli import main
from support.comparison_cases import Case, as_of_other_code
from support.deploy_models import node, set_attribute
from support.interrupted_runs import figures, interrupt_at
from support.qdq_builder import QdqBuilder

WIDTH = 64
TIPPED = 2
"""Of 6 samples those with another number of elements."""


@pytest.fixture(scope="module")
def selecting(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """x -> int8 Gemm -> its positive numbers -> int8 MatMul.

    The bias is 0.4 steps, which int32 rounds to 0: where a product is 0, only the source has a positive number.
    """
    folder = tmp_path_factory.mktemp("selecting")
    rng = np.random.default_rng(0)
    b, zero_point = QdqBuilder(13), np.array(0, np.int8)
    integers = rng.integers(-3, 4, (WIDTH, WIDTH)).astype(np.int8)
    x, bias = b.input("x", ["n", WIDTH]), b.constant(np.full(WIDTH, 0.4 * 0.5 * 0.01, np.float32))
    scores = b.node("Gemm", [b.activation(x, 0.5, zero_point), b.weight(integers, 0.01), bias], "first")
    positive = b.node("Greater", [scores, b.constant(np.zeros((), np.float32))], "positive")
    b.output(b.node("NonZero", [positive], "chosen", "places"), TensorProto.INT64)
    flags = b.node("Reshape", [positive, b.constant(np.array([-1]))], "flags")
    column = b.node("Reshape", [b.node("Compress", [scores, flags], "taken"), b.constant(np.array([-1, 1]))], "column")
    weight = b.weight(rng.integers(-127, 128, (1, 8)).astype(np.int8), 0.01)
    b.output(b.node("MatMul", [b.activation(column, 0.01, zero_point), weight], "second", "y"))
    b.output(b.node("ReduceMax", [scores], "best", "most", keepdims=0))
    case = Case(b.save(folder), folder / "m", folder / "data.npz", folder / "labels.npy")
    amct_onnx.convert_qat_model(case.source, case.prefix)
    samples = rng.integers(-12, 13, (40, WIDTH))
    tips = (samples @ integers == 0).any(axis=1)
    np.savez(case.data, x=np.concatenate([samples[~tips][:4], samples[tips][:TIPPED]]).astype(np.float32) / 2)
    return case


def test_tensors_of_another_size_are_told_and_blame_no_model(selecting: Case) -> None:
    found = selecting.compare(batch_size=1)
    assert found.verdict.level == "noise" and not any(d.is_fault for d in found.divergences)
    of_output = {o.name: {d.model: d for d in o.differences} for o in found.outputs}
    assert all(d.other_size == TIPPED and d.count for n in ("places", "y") for d in of_output[n].values())
    assert all(d.other_size == 0 and d.count == 6 for d in of_output["most"].values())
    told = [s for s in found.verdict.sentences if "another number of elements" in s]
    assert [t.split(" has ")[0] for t in told[:2]] == ["Output 'places'", "Output 'y'"]
    assert all(" in 2 of 6 batches, in fake-quant and deploy@a2. Numbers" in t for t in told[:2])
    assert len(told) == 3 and told[2].startswith("1 tensor at layers had")
    assert any(line in found.verdict.brief for line in told)


def test_output_that_is_never_compared_is_not_judged(selecting: Case) -> None:
    found = selecting.compare(batch_size=0)
    assert found.verdict.level == "incomplete" and not any(d.is_fault for d in found.divergences)
    assert [t.split(" has ")[0] for t in found.not_judged] == ["Output 'places'", "Output 'y'"]
    assert all(t.endswith("A batch size of 1 compares the samples that have as many.") for t in found.not_judged)
    (never,) = [o for o in found.outputs if o.name == "y"]
    assert all((d.count, d.other_size, d.exact, d.max_abs) == (0, 1, False, None) for d in never.differences)


def test_resumed_run_of_such_outputs_equals_an_uninterrupted_one(
    selecting: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*selecting.arguments, "--batch_size", "1", "--json_report"]
    assert main([*arguments, str(tmp_path / "whole.json")]) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        assert main([*arguments, str(tmp_path / "part.json")]) == 130
    assert main([*arguments, str(tmp_path / "rest.json"), "--resume"]) == 0
    assert figures(tmp_path / "rest.json") == figures(tmp_path / "whole.json")
    outputs = json.loads((tmp_path / "rest.json").read_text(encoding="utf-8"))["outputs"]
    assert sum(d["other_size"] for o in outputs for d in o["differences"])


def test_fault_behind_a_tensor_of_another_size_is_found(selecting: Case) -> None:
    """By the numbers alone, also where the first batch selects another number of elements."""
    ledger = Path(f"{selecting.prefix}_quant.json")
    kept = selecting.deploy.read_bytes(), ledger.read_bytes()
    model = onnx.load_model_from_string(kept[0])
    quantizer = node(model, "second.quant")
    set_attribute(model, quantizer.name, scale=1.5 * next(a.f for a in quantizer.attribute if a.name == "scale"))
    onnx.save(model, selecting.deploy)
    as_of_other_code(ledger)
    try:
        found = selecting.compare(batch_size=0)
    finally:
        selecting.deploy.write_bytes(kept[0])
        ledger.write_bytes(kept[1])
    (fault,) = [d for d in found.divergences if d.is_fault]
    assert (fault.model, fault.layer) == ("deploy@a2", "second")
