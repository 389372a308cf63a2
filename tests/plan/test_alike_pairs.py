"""Pairs that come back when another one goes: which ones there are, and that the advice that names them holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import amct_onnx as amct
from amct_onnx.files.read import read_model
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.alike_pairs import AlikePairs
from amct_onnx.plan.factors import AlikePair, Pair, Plan
from amct_onnx.plan.planner import make_plan
from support.written_models import Array, write_model

CONSTANTS: dict[str, Array] = {
    "s": np.float32(2.0**-4),
    "t": np.float32(2.0**-5),
    "z": np.int8(0),
    "near": np.float32(1.002),
    "back": np.asarray([0, 2, 1, 3]),
    "w": np.arange(-8, 8).astype(np.int8).reshape(4, 4, 1, 1),
}
POOL = "b = MaxPool <kernel_shape = [6, 6]> (r) "
LAYER = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, s) c = Conv(d, e) "


def pair(source: str, result: str, scale: str = "t") -> str:
    return f"q_{result} = QuantizeLinear({source}, {scale}, z) {result} = DequantizeLinear(q_{result}, {scale}, z) "


def written(body: str, path: Path, outputs: str = "y l m") -> Path:
    """A model with an int8 Conv ``c``; its outputs are those of some names that its body makes."""
    made = [f"float[n, k, i, j] {name}" for name in outputs.split() if f" {name} = " in body]
    graph = f"g (float[n, 4, 6, 6] x) => ({', '.join(made)}) {{ {LAYER} {body} }}"
    return write_model(path, graph, CONSTANTS)


def planned(body: str, path: Path) -> Plan:
    return make_plan(normalise(read_model(written(body, path))))


def staying(body: str, path: Path) -> Pair:
    """The pair that stays of the last layer's result."""
    (found,) = [p for p in planned(body, path).pairs if not p.elided and p.source != "x"]
    return found


def known(pairs: tuple[AlikePair, ...]) -> tuple[AlikePair, ...]:
    """Without the names of their tensors, of which none is empty."""
    assert all(pair.outputs and all(pair.outputs) for pair in pairs)
    return tuple(pair._replace(outputs=()) for pair in pairs)


RELU = AlikePair("Relu", (), False)
TRANSPOSE = AlikePair("Transpose", (), False)
CONV = AlikePair("an int8 Conv", (), False)
BEHIND = {
    "none": (pair("c", "r") + "y = Sigmoid(r)", ()),
    "one": (pair("c", "r") + "y = Sigmoid(r) b = Relu(r) " + pair("b", "r1") + "l = Tanh(r1)", (RELU,)),
    "two in a row": (
        pair("c", "r")
        + "y = Sigmoid(r) b = Relu(r) "
        + pair("b", "r1")
        + "f = Transpose(r1) "
        + pair("f", "r2")
        # nobody needs the numbers of the Relu, only what is behind the Transpose
        + "l = Tanh(r2)",
        (RELU, TRANSPOSE),
    ),
    "behind a movement": (
        pair("c", "r") + "y = Sigmoid(r) f = Transpose(r) b = Relu(f) " + pair("b", "r1") + "l = Tanh(r1)",
        (RELU,),
    ),
    "directly behind": (
        pair("c", "r")
        + "b = Mul(r, near) "
        + pair("b", "r1")
        + "h = Relu(r1) "
        + pair("h", "r2")
        # the Relu moves in front of the factor, which changes no integer
        + "y = Tanh(r2) m = Conv(r2, e)",
        (),
    ),
    "for a layer": (
        pair("c", "r") + "y = Sigmoid(r) b = Relu(r) " + pair("b", "r1") + "l = Tanh(r1) m = Conv(r1, e)",
        (AlikePair("Relu", ("Tanh",), True),),
    ),
    "for a layer behind a movement": (
        pair("c", "r")
        + "y = Sigmoid(r) b = Relu(r) "
        + pair("b", "r1")
        + "l = Tanh(r1) f = Transpose(r1) m = Conv(f, e)",
        (AlikePair("Relu", ("Tanh",), True),),
    ),
    "read for its shape alone": (
        pair("c", "r") + "y = Sigmoid(r) b = Relu(r) " + pair("b", "r1") + "k = Shape(r1) l = ConstantOfShape(k)",
        (),
    ),
}


@pytest.mark.parametrize(("body", "expected"), BEHIND.values(), ids=BEHIND)
def test_pairs_behind(body: str, expected: tuple[AlikePair, ...], tmp_path: Path) -> None:
    assert known(staying(body, tmp_path / "m.onnx").behind) == expected


BEFORE = {
    "none": ("b = Relu(c) " + pair("b", "r") + "y = GlobalAveragePool(r)", ()),
    "one": (pair("c", "r") + "b = Relu(r) " + pair("b", "r1") + "y = GlobalAveragePool(r1)", (CONV,)),
    "two in a row": (
        pair("c", "r") + "b = Relu(r) " + pair("b", "r1") + "f = Transpose(r1) " + pair("f", "r2") + "y = Softmax(r2)",
        (RELU, CONV),
    ),
    "several of a Concat": (
        pair("c", "r")
        + "k = Exp(c) "
        + pair("k", "r1")
        + "b = Concat <axis = 1> (r, x, r1) "
        + pair("b", "r2")
        + "y = GlobalAveragePool(r2)",
        (CONV, AlikePair("Exp", (), False)),
    ),
    "for a layer": (
        pair("c", "r")
        + "m = Conv(r, e) b = MaxPool <kernel_shape = [6, 6]> (r) "
        + pair("b", "r1")
        + "y = Softmax(r1)",
        (AlikePair("an int8 Conv", ("MaxPool",), True),),
    ),
    "one behind another": (
        pair("c", "r")
        + "m = Conv(r, e) "
        + pair("r", "r1")
        + "b = MaxPool <kernel_shape = [6, 6]> (r1) "
        + pair("b", "r2")
        + "y = Softmax(r2)",
        (AlikePair("an int8 Conv", ("MaxPool",), True),),
    ),
}


@pytest.mark.parametrize(("body", "expected"), BEFORE.values(), ids=BEFORE)
def test_pairs_before(body: str, expected: tuple[AlikePair, ...], tmp_path: Path) -> None:
    assert known(staying(body, tmp_path / "m.onnx").before) == expected


FOLLOWED = {
    "behind": (
        pair("c", "r") + "y = Sigmoid(r) b = Relu(r) " + pair("b", "r1") + "l = Tanh(r1)",
        "let the exporter not quantize the output of Relu behind it either",
        "y = Sigmoid(c) b = Relu(c) l = Tanh(b)",
    ),
    "behind, for a layer": (
        pair("c", "r") + "y = Sigmoid(r) b = Relu(r) " + pair("b", "r1") + "l = Tanh(r1) m = Conv(r1, e)",
        "let Tanh get the output of Relu behind it in front of the quantizer that an int8 layer needs",
        "y = Sigmoid(c) b = Relu(c) " + pair("b", "r1") + "l = Tanh(b) m = Conv(r1, e)",
    ),
    "before, for a layer": (
        pair("c", "r")
        + "m = Conv(r, e) b = MaxPool <kernel_shape = [6, 6]> (r) "
        + pair("b", "r1")
        + "y = Softmax(r1)",
        "let MaxPool get the output of the int8 Conv in front of the quantizer that an int8 layer needs",
        pair("c", "r") + "m = Conv(r, e) b = MaxPool <kernel_shape = [6, 6]> (c) y = Softmax(b)",
    ),
}


@pytest.mark.parametrize(("body", "sentence", "followed"), FOLLOWED.values(), ids=FOLLOWED)
def test_who_follows_the_advice_gains_what_it_tells(body: str, sentence: str, followed: str, tmp_path: Path) -> None:
    before, after = (
        amct.convert_qat_model(written(text, tmp_path / f"{name}.onnx"), tmp_path / "out" / name).cost
        for name, text in (("before", body), ("after", followed))
    )
    assert before is not None and after is not None
    (change,) = before.changes
    assert sentence in change.advice
    passes = before.quant.elements + before.anti_quant.elements - after.quant.elements - after.anti_quant.elements
    gone = (before.quant.nodes - after.quant.nodes, before.anti_quant.nodes - after.anti_quant.nodes, passes)
    assert gone == (change.quant, change.anti_quant, change.elements)
    assert before.int8_layers == after.int8_layers and not after.changes


def test_the_work_grows_as_the_model_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many pairs in a row, and as many readers of them, take twice as many looks at a pair."""
    looks = 0
    look = AlikePairs._quantized

    def counted(self: AlikePairs, *arguments: object) -> object:
        nonlocal looks
        looks += 1
        return look(self, *arguments)  # type: ignore[arg-type]  # of any method that is counted

    monkeypatch.setattr(AlikePairs, "_quantized", counted)
    taken = []
    for count in (20, 40, 80):
        body, last = pair("c", "r"), "r"
        for i in range(count):
            body += f"b{i} = Transpose({last}) " + pair(f"b{i}", f"r{i}") + f"h{i} = Sigmoid(r{i}) "
            body += f"k{i} = Concat <axis = 1> (r{i}, c) " + pair(f"k{i}", f"v{i}") + f"o{i} = Softmax(v{i}) "
            last = f"r{i}"
        body += f"y = Sum({', '.join(f'h{i}, o{i}' for i in range(count))})"
        looks = 0
        planned(body, tmp_path / "m.onnx")
        taken.append(looks)
    assert taken[2] - taken[1] == 2 * (taken[1] - taken[0]) > 0
