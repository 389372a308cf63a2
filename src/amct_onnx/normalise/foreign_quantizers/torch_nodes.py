"""Fake-quant nodes of PyTorch: ATen's fake_quantize (source: torch's documentation) and MQBench's operators.

MQBench exports its quantizers as operators of no domain or any: LearnablePerTensorAffine, FixedPerChannelAffine and
others take x, scale and zero point, and either state quant_min and quant_max or end with them as inputs (source:
MQBench's deploy module, which reads them so). A learnt zero point is rounded where it is used.
"""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.errors import FactorError
from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.normalise.foreign_quantizers.factors import factor_of, scale_of, tensor_of
from amct_onnx.normalise.foreign_quantizers.grid import Grid
from amct_onnx.normalise.foreign_quantizers.writer import QuantizerWriter, Rule

ATEN = re.compile(r"_?fake_quantize_(?:learnable_)?per_(tensor|channel)_affine(?:_cachemask|\.\w+)?")
MQBENCH = re.compile(r"(?:FakeQuantize)?(?:Learnable|Fixed)Per(Tensor|Channel)Affine", re.IGNORECASE)
"""Operators whose forward pass is the plain quantizer. Others (TQT, DSQ, PACT) have parameters of their own kind."""


def rule_for(node: ir.Node) -> Rule | None:
    """The rule that reads a node, if it is one of these."""
    if _aten_name(node):
        return aten
    return mqbench if MQBENCH.fullmatch(node.op_type) else None


def aten(writer: QuantizerWriter, node: ir.Node) -> None:
    """fake_quantize: x, scale, zero point, then the axis (per channel), quant_min, quant_max."""
    match = ATEN.fullmatch(_aten_name(node))
    assert match is not None
    channels = match[1] == "channel"
    axis = _number(writer, node, 3) if channels else None
    _write(writer, node, axis, _number(writer, node, 4 if channels else 3), _number(writer, node, 5 if channels else 4))


def mqbench(writer: QuantizerWriter, node: ir.Node) -> None:
    """x, scale, zero point; quant_min, quant_max and ch_axis as attributes, or the two bounds as last inputs."""
    match = MQBENCH.fullmatch(node.op_type)
    assert match is not None
    if len(node.inputs) > 4:
        low, high = (_number(writer, node, len(node.inputs) - i) for i in (2, 1))
    else:
        low, high = (_stated(node, name) for name in ("quant_min", "quant_max"))
    axis = checked_attribute(node, "ch_axis", 0) if match[1].lower() == "channel" else None
    _write(writer, node, axis, low, high)


def _write(writer: QuantizerWriter, node: ir.Node, axis: int | None, low: int, high: int) -> None:
    if low >= high:
        raise FactorError(f"Node '{node.name}': its range {low}..{high} is empty. Calibrate or train it again.")
    scale = scale_of(node, 1, writer.constants)
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = np.zeros(1) if given is None else np.clip(np.rint(factor_of(node, 2, writer.constants)), low, high)
    if axis is not None and max(scale.size, zero.size) > 1:
        scale, zero = (_along(writer, node, axis, factor) for factor in (scale, zero))
    if len(node.outputs) > 1:  # the mask of the backward pass
        node.resize_outputs(1)
    writer.write(node, Grid.of(scale, zero, low, high))


def _along(writer: QuantizerWriter, node: ir.Node, axis: int, factor: Array) -> Array:
    """A vector of factors, broadcastable against the node's tensor."""
    x = tensor_of(node)
    rank = writer.rank(x, 0)
    if not -rank <= axis < rank:
        raise FactorError(
            f"Node '{node.name}' ({node.op_type}): its axis {axis} does not exist in tensor '{x.name}' of "
            f"{counted(rank, 'axis', 'axes')}. Run ONNX shape inference on the model first, or export it again."
        )
    shape = [1] * rank
    shape[axis] = -1
    return factor.reshape(shape)


def _aten_name(node: ir.Node) -> str:
    """The ATen operator that a node stands for: its type, or what an ATen node states; empty for others."""
    name = node.op_type
    if name == "ATen" and "operator" in node.attributes:
        name = checked_attribute(node, "operator", "")
    name = name.removeprefix("aten::").removeprefix("aten_")
    return name if ATEN.fullmatch(name) else ""


def _number(writer: QuantizerWriter, node: ir.Node, index: int) -> int:
    numbers = factor_of(node, index, writer.constants)
    if numbers.size != 1 or numbers.flat[0] != np.rint(numbers.flat[0]):
        raise FactorError(
            f"Node '{node.name}' ({node.op_type}): its input {index} holds {numbers.reshape(-1)[:4].tolist()}, not one "
            "integer. Export the model again."
        )
    return int(numbers.flat[0])


def _stated(node: ir.Node, name: str) -> int:
    if name not in node.attributes:
        raise FactorError(
            f"Node '{node.name}' ({node.op_type}) lacks its attribute {name}. Export the model with the range of its "
            "quantizers."
        )
    return checked_attribute(node, name, 0)
