"""Tensors that the models may hold unrounded are compared as all their readers round them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_onnx as amct
from support.comparison_cases import as_of_other_code
from support.written_models import Array, operators, write_model

RNG = np.random.default_rng(5)
CONSTANTS: dict[str, Array] = {
    "s": np.float32(0.05),
    "t": np.float32(0.09),
    "z": np.int8(0),
    "w": RNG.integers(-127, 128, (4, 8, 1, 1)).astype(np.int8),
    "sw": np.float32(0.01),
}
BODY = (
    "q1 = QuantizeLinear(x, s, z) d1 = DequantizeLinear(q1, s, z) "
    "n1 = Neg(x) q2 = QuantizeLinear(n1, t, z) d2 = DequantizeLinear(q2, t, z) "
    "k = Concat <axis = 1> (d1, d2) m = Transpose <perm = [0, 1, 3, 2]> (k) "
    "q3 = QuantizeLinear(m, s, z) d3 = DequantizeLinear(q3, s, z) e = DequantizeLinear(w, sw) c = Conv(d3, e) "
    "y = Sigmoid(c)"
)


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    text = f"g (float[n, 4, 6, 6] x) => (float[n, 4, 6, 6] y) {{ {BODY} }}"
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS)
    model = onnx.load(path)
    for node in model.graph.node:  # what has a name is compared
        node.name = f"{node.op_type}_of_{node.output[0]}"
    onnx.save(model, path)
    report = amct.convert_qat_model(path, tmp_path / "out" / "m")
    assert operators(onnx.load(report.deploy_model)).count("AscendAntiQuant") == 1  # of d2 alone
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(4, 4, 6, 6)).astype(np.float32) * 3)
    return path


def compared(path: Path) -> amct.CompareReport:
    return amct.compare(path, path.parent / "out" / "m", path.parent / "x.npz")


def test_pair_left_out_in_front_of_a_concat_is_no_fault(converted: Path) -> None:
    assert not [d for d in compared(converted).divergences if d.is_fault]


def test_wrong_numbers_in_front_of_a_concat_are_a_fault(converted: Path) -> None:
    folder = converted.parent / "out"
    for name in ("m_deploy_model.onnx", "m_fake_quant_model.onnx"):
        model = onnx.load(folder / name)
        (concat,) = (n for n in model.graph.node if n.op_type == "Concat")
        concat.input[:] = reversed(concat.input)
        onnx.save(model, folder / name)
    as_of_other_code(folder / "m_quant.json")  # so that the numbers alone are looked at
    faults = [d for d in compared(converted).divergences if d.is_fault]
    assert {d.model for d in faults} == {"fake-quant", "deploy@a2"}
    assert all("Concat" in d.text for d in faults)
