"""Why the source's own numbers judge nothing, before any model is held to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper

from amct_onnx.common.arrays import Array
from amct_onnx.common.onnxruntime_session import open_session, session_options
from amct_onnx.files.read import read_model
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.random_nodes import draw, random_nodes
from amct_onnx.verbs.compare.explain.doubts import Doubt
from amct_onnx.verbs.compare.measure.batch import Batch, Runner


def unreliable_source(
    model: str | os.PathLike[str], runner: Runner, first: Batch, outputs: Mapping[str, Array]
) -> Doubt | None:
    """None when no output is random, and the executor computes the source's quantizers as ONNX says.

    Nodes that draw count although the first batch gives the same again: rare draws differ in another batch.

    Args:
        model: the source.
        runner: with the session of the source.
        first: the first batch.
        outputs: the source's outputs for it, by name.
    """
    why = _why_random(model, runner, first, outputs)
    if why:
        return Doubt(
            "the source itself is random, so no figure can be judged",
            why,
            "Export the model in inference mode (model.eval()), and convert it again.",
        )
    quantizer = None if rounds_float16() else float16_quantizer(read_model(model))
    if quantizer is not None:
        return Doubt(
            f"onnxruntime {ort.__version__} computes the source wrongly, so no figure can be judged",
            f"Its QuantizeLinear on float16 cuts off where ONNX rounds, as in node '{quantizer.name}'.",
            "Install onnxruntime 1.24 or newer, which needs Python 3.11.",
        )
    return None


def _why_random(model: str | os.PathLike[str], runner: Runner, first: Batch, outputs: Mapping[str, Array]) -> str:
    """Empty where nothing is random."""
    drawing = random_nodes(read_model(model))
    again = runner.outputs(list(outputs), first)
    if all(_same(outputs[name], again[name]) for name in outputs):
        return f"The source's outputs depend on chance: {draw(drawing)}." if drawing else ""
    why = draw(drawing) if drawing else "no node is known to draw random numbers; a kernel may add in another order"
    return f"The source gives other outputs for the same data each time it runs: {why}."


def _same(one: Array, other: Array) -> bool:
    """Bit for bit; NaN equals NaN."""
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def float16_quantizer(model: ir.Model) -> ir.Node | None:
    """The first QuantizeLinear whose scale is float16."""
    for node in nodes_of(model):
        if node.op_type == "QuantizeLinear" and len(node.inputs) > 1 and node.inputs[1] is not None:
            if node.inputs[1].dtype == ir.DataType.FLOAT16:
                return node
    return None


@cache
def rounds_float16() -> bool:
    """Whether ONNX Runtime's QuantizeLinear rounds float16, which it does since 1.24."""
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])],
        "float16",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [2])],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [2])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT16, [], np.ones(1, np.float16).tobytes(), raw=True),
            helper.make_tensor("zero", TensorProto.INT8, [], [0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    session = open_session(model.SerializeToString(), session_options())
    (found,) = session.run(None, {"x": np.array([1.75, -1.75], np.float16)})
    return bool(np.array_equal(found, [2, -2]))
