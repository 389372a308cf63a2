"""Each quantizer that is left says who needs it, and what in the exporter removes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import amct_onnx as amct
from support.written_models import Array, write_model

CONSTANTS: dict[str, Array] = {
    "s": np.float32(2.0**-4),
    "t": np.float32(2.0**-5),
    "z": np.int8(0),
    "u": np.int16(0),
    "a": np.asarray([0.25, 0.5, 1, 2], np.float32),
    "w": np.arange(-8, 8).astype(np.int8).reshape(4, 4, 1, 1),
}
LAYER = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, s) c = Conv(d, e) "
PAIR = "p = QuantizeLinear(c, t, z) r = DequantizeLinear(p, t, z) "
DROP = ", or drop it (residual_quantizers)"
TWO_LEFT = "which leaves two operators in its place" + DROP
BY_SIGMOID = (
    "Sigmoid reads what it rounds, behind an int8 Conv. To remove it, let the exporter quantize neither the output of "
    "the int8 Conv nor the inputs of Sigmoid"
)
BEHIND = PAIR + "y = Sigmoid(r) b = Relu(r) p1 = QuantizeLinear(b, t, z) "
BY_RELU = (
    "Relu and Sigmoid read what it rounds, behind an int8 Conv. To remove it, let the exporter quantize neither the "
    "output of the int8 Conv nor the inputs of Relu and Sigmoid and let {} get the output of Relu behind it in front "
    "of the quantizer that an int8 layer needs" + DROP
)
CASES = {
    "an operator": (
        PAIR + "y = Sigmoid(r)",
        BY_SIGMOID + DROP,
    ),
    "operators and a graph output": (
        "k = Exp(c) p = QuantizeLinear(k, t, z) y = DequantizeLinear(p, t, z) l = Sigmoid(y) m = Tanh(y)",
        "Sigmoid and Tanh read what it rounds and a graph output holds what it rounds, behind Exp. To remove it, let "
        "the exporter quantize neither the output of Exp, a graph output, nor the inputs of Sigmoid and Tanh" + DROP,
    ),
    "a graph output": (
        "k = Exp(c) p = QuantizeLinear(k, t, z) y = DequantizeLinear(p, t, z)",
        "a graph output holds what it rounds, behind Exp. To remove it, let the exporter not quantize the graph "
        "output behind Exp" + DROP,
    ),
    "a float layer": (
        PAIR + "g = Mul(v, t) y = Conv(r, g)",
        "Conv that stays float reads what it rounds, behind an int8 Conv. To remove it, let Conv become int8 as its "
        "row in the ledger says" + DROP,
    ),
    "16 bits": (
        "p = QuantizeLinear(c, t, u) r = DequantizeLinear(p, t, u) y = Sigmoid(r)",
        f"it has 16 bits, and AscendQuant 8; {BY_SIGMOID}, or quantize it to int8, {TWO_LEFT}",
    ),
    "channels": (
        "p = QuantizeLinear <axis = 1> (c, a) r = DequantizeLinear <axis = 1> (p, a) y = Sigmoid(r)",
        f"it has several scales or zero points, and AscendQuant one; {BY_SIGMOID}, or quantize it per tensor, "
        f"{TWO_LEFT}",
    ),
    "an operator behind one that keeps the integers": (
        PAIR + "a1 = Relu(r) p1 = QuantizeLinear(a1, t, z) r1 = DequantizeLinear(p1, t, z) y = GlobalAveragePool(r1)",
        "GlobalAveragePool reads what it rounds, behind Relu. To remove it, let the exporter quantize neither the "
        "output of Relu nor the inputs of GlobalAveragePool and let the exporter not quantize the output of the int8 "
        "Conv either, which Relu hands on" + DROP,
    ),
    "an operator behind one that brings several together": (
        PAIR
        + "k = Exp(c) p1 = QuantizeLinear(k, t, z) r1 = DequantizeLinear(p1, t, z) t1 = Transpose(r) "
        + "t2 = Transpose(t1) b = Concat <axis = 1> (t2, x, r1) p2 = QuantizeLinear(b, t, z) "
        + "r2 = DequantizeLinear(p2, t, z) y = GlobalAveragePool(r2)",
        "GlobalAveragePool reads what it rounds, behind Concat. To remove it, let the exporter quantize neither the "
        "output of Concat nor the inputs of GlobalAveragePool and let the exporter not quantize the output of the int8 "
        "Conv and the output of Exp either, which Concat hands on" + DROP,
    ),
    "an operator in front of one that keeps the integers": (
        PAIR + "y = Sigmoid(r) b = Transpose(r) p1 = QuantizeLinear(b, t, z) r1 = DequantizeLinear(p1, t, z) "
        "l = Tanh(r1)",
        "Sigmoid and Transpose read what it rounds, behind an int8 Conv. To remove it, let the exporter quantize "
        "neither the output of the int8 Conv nor the inputs of Sigmoid and Transpose and let the exporter not quantize "
        "the output of Transpose behind it either" + DROP,
    ),
    "an operator in front of one whose integers a layer reads": (
        BEHIND + "r1 = DequantizeLinear(p1, t, z) l = Tanh(r1) m = Conv(r1, e)",
        BY_RELU.format("Tanh"),
    ),
    "an operator in front of a graph output whose integers a layer reads": (
        BEHIND + "l = DequantizeLinear(p1, t, z) m = Conv(l, e)",
        BY_RELU.format("the graph output"),
    ),
    "quantizers behind one another, of which a layer reads the first": (
        PAIR + "i = Identity(r) p2 = QuantizeLinear(i, t, z) r2 = DequantizeLinear(p2, t, z) m = Conv(r, e) "
        "b = Concat <axis = 1> (r2, x) p1 = QuantizeLinear(b, t, z) r1 = DequantizeLinear(p1, t, z) "
        "y = GlobalAveragePool(r1)",
        "GlobalAveragePool reads what it rounds, behind Concat. To remove it, let the exporter quantize neither the "
        "output of Concat nor the inputs of GlobalAveragePool and let Concat get the output of the int8 Conv in front "
        "of the quantizer that an int8 layer needs" + DROP,
    ),
    "data movement in front of a layer": (
        PAIR + "f = Transpose(r) m = Conv(f, e) y = Sigmoid(r)",
        "Sigmoid reads what it rounds, behind an int8 Conv. To remove it, let Sigmoid get the numbers in front of the "
        "quantizer, which the int8 layer needs" + DROP,
    ),
    "16 bits for a float layer": (
        "p = QuantizeLinear(c, t, u) r = DequantizeLinear(p, t, u) g = Mul(v, t) y = Conv(r, g)",
        "it has 16 bits, and AscendQuant 8; Conv that stays float reads what it rounds, behind an int8 Conv. To remove "
        "it, quantize it to int8, so that Conv becomes int8" + DROP,
    ),
    "a tensor that a layer quantizes with other factors": (
        PAIR + "f = QuantizeLinear(c, s, z) g = DequantizeLinear(f, s, z) h = Conv(g, e) y = Add(r, h)",
        "Add reads what it rounds, behind an int8 Conv. To remove it, give Add the quantizer of the int8 layer that "
        "reads the same tensor, or none" + DROP,
    ),
    "a tensor that a layer quantizes with the same factors": (
        PAIR + "h = Conv(r, e) y = Add(r, h)",
        "shared with an int8 layer: Add reads what it rounds, behind an int8 Conv. To remove it, let Add get the "
        "numbers in front of the quantizer, which the int8 layer needs",
    ),
    "integers that are an output": (
        "y = QuantizeLinear(c, t, z)",
        "graph output 'y' holds its integers. Export that output as floats to be without it",
    ),
}


@pytest.mark.parametrize(("body", "detail"), CASES.values(), ids=CASES.keys())
def test_a_row_says_why_it_stays_and_what_removes_it(body: str, detail: str, tmp_path: Path) -> None:
    outputs = ["y", *(name for name in ("l", "m") if f" {name} = " in body)]
    kind = "int8" if "holds its" in detail else "float"
    declared = ", ".join(f"{kind}[n, 4, i, j] {name}" for name in outputs)
    inputs = "float[n, 4, 6, 6] x" + (", float[4, 4, 1, 1] v" if "g = " in body else "")
    path = write_model(tmp_path / "m.onnx", f"g ({inputs}) => ({declared}) {{ {LAYER} {body} }}", CONSTANTS, opset=21)
    report = amct.convert_qat_model(path, tmp_path / "out" / "m")
    assert [r.detail for r in report.residuals if r.action != "elided"] == [detail]


TWO = "f = QuantizeLinear(h, s, z) g = DequantizeLinear(f, s, z) y = Neg(g)"
BY_NEG = "Neg reads what it rounds, behind {}. To remove it, let the exporter {} the inputs of Neg" + DROP
IN_A_ROW = {
    "behind a mover": (
        PAIR + "h = Flatten(r) " + TWO,
        "another quantizer behind Flatten reads what it rounds, behind an int8 Conv. To remove it, give the quantizers "
        "in front of and behind Flatten the same factors" + DROP,
        BY_NEG.format("Flatten", "quantize neither the output of Flatten nor"),
    ),
    "behind a pair that moved": (
        "k = Exp(c) p = QuantizeLinear(k, t, z) r = DequantizeLinear(p, t, z) h = MaxPool <kernel_shape = [6, 6]> (r) "
        + TWO,
        "another quantizer reads what it rounds, behind MaxPool. To remove it, give both quantizers the same factors"
        + DROP,
        BY_NEG.format("another quantizer", "not quantize"),
    ),
}


@pytest.mark.parametrize(("body", "first", "second"), IN_A_ROW.values(), ids=IN_A_ROW)
def test_two_quantizers_with_data_movement_between_them(body: str, first: str, second: str, tmp_path: Path) -> None:
    text = f"g (float[n, 4, 6, 6] x) => (float y) {{ {LAYER} {body} }}"
    report = amct.convert_qat_model(write_model(tmp_path / "m.onnx", text, CONSTANTS), tmp_path / "out" / "m")
    assert {r.detail for r in report.residuals if r.action != "elided"} == {first, second}
    assert report.cost is not None and [c.elements > 0 for c in report.cost.changes] == [True, True]
