"""Every tensor that the models share is shown; what is no tensor, or what has no shape, does not end a comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import amct_onnx
from support.qdq_builder import QdqBuilder

CHANNELS = 4


def product(b: QdqBuilder, x: str, name: str) -> str:
    """An int8 MatMul of CHANNELS to CHANNELS."""
    weight = np.random.default_rng(0).integers(-127, 128, (CHANNELS, CHANNELS)).astype(np.int8)
    return b.node("MatMul", [b.activation(x, 0.03, np.array(0, np.int8)), b.weight(weight, 0.004)], name)


def split(b: QdqBuilder, x: str) -> str:
    parts = b.node("SplitToSequence", [x, b.constant(np.array([2, 2]))], "split", axis=1)
    halves = [b.node("SequenceAt", [parts, b.constant(np.array(i))], f"half{i}") for i in (1, 0)]
    return b.node("Concat", halves, "joined", axis=1)


def optional(b: QdqBuilder, x: str) -> str:
    return b.node("OptionalGetElement", [b.node("Identity", [b.node("Optional", [x], "maybe")], "same")], "element")


def scanned(b: QdqBuilder, x: str) -> str:
    def untyped(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    nodes = [helper.make_node("Add", ["state", "row"], ["sum"]), helper.make_node("Identity", ["sum"], ["row_out"])]
    body = helper.make_graph(nodes, "body", [untyped("state"), untyped("row")], [untyped("sum"), untyped("row_out")])
    start = b.constant(np.zeros(CHANNELS, np.float32))
    b.nodes.append(helper.make_node("Scan", [start, x], ["last", "rows"], "scan", body=body, num_scan_inputs=1))
    return "rows"


def compared(
    inner: Callable[[QdqBuilder, str], str], folder: Path, *, sequence: bool = False
) -> amct_onnx.CompareReport:
    b = QdqBuilder(17)
    x = product(b, b.input("x", [3, CHANNELS]), "first")
    b.output(product(b, inner(b, x), "second"), shape=[3, CHANNELS])
    if sequence:
        b.node("SequenceConstruct", [x, x], "pair", "pair")
        b.outputs.append(helper.make_tensor_sequence_value_info("pair", TensorProto.FLOAT, None))
    source = b.save(folder)
    amct_onnx.convert_qat_model(source, folder / "m")
    data = np.random.default_rng(1).normal(size=(3, CHANNELS)).astype(np.float32)
    return amct_onnx.compare(source, folder / "m", {"x": data}, threads=1)


@pytest.mark.parametrize("inner", [split, optional, scanned])
def test_node_without_tensor_or_shape(inner: Callable[[QdqBuilder, str], str], tmp_path: Path) -> None:
    found = compared(inner, tmp_path)
    assert len([e for e in found.layers if e.compared]) == 2
    assert not [d for d in found.divergences if d.is_fault] and not found.not_judged


def test_sequence_among_the_outputs_is_not_judged(tmp_path: Path) -> None:
    found = compared(split, tmp_path, sequence=True)
    assert found.verdict.level == "incomplete" and len(found.outputs) == 1
    (told,) = found.not_judged
    assert told.startswith("output 'pair': it is a sequence")
