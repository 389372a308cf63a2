"""mct_quantizers of Sony's Model Compression Toolkit (source: its documented thresholds and ranges)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.attributes import checked_attribute
from amct_onnx.normalise.foreign_quantizers.factors import bits_attribute, check_range, factor_of, tensor_of, usable
from amct_onnx.normalise.foreign_quantizers.grid import Grid, integer_range
from amct_onnx.normalise.foreign_quantizers.writer import QuantizerWriter, Rule


def symmetric(writer: QuantizerWriter, node: ir.Node) -> None:
    """Symmetric and POT (threshold a power of two): 2^bits levels over [-threshold, threshold)."""
    bits = bits_attribute(node, "num_bits", 8)
    signed = int(node.op_type.startswith("Weights") or bool(checked_attribute(node, "signed", 1)))
    threshold = usable(node, "threshold", _range_end(writer, node, "threshold", 1), positive=True)
    scale = (threshold / 2 ** (bits - signed)).astype(np.float32)
    low, high = integer_range(bits, signed)
    writer.write(node, Grid.of(scale, np.zeros(1), low, high))


def uniform(writer: QuantizerWriter, node: ir.Node) -> None:
    """Uniform: 2^bits levels over a range that is moved until zero is one of them."""
    bits = bits_attribute(node, "num_bits", 8)
    low = np.minimum(_range_end(writer, node, "min_range", 1), 0)
    high = np.maximum(_range_end(writer, node, "max_range", 2), 0)
    check_range(node, low, high)
    scale = (high - low) / (2**bits - 1)
    writer.write(node, Grid.of(scale.astype(np.float32), np.rint(-low / scale), 0, 2**bits - 1))


def _range_end(writer: QuantizerWriter, node: ir.Node, name: str, index: int) -> Array:
    """An activation's attribute, or a weight's input laid along its channel axis."""
    if name in node.attributes:
        attribute = node.attributes[name]
        if attribute.type not in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS) or attribute.is_ref():
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): attribute '{name}' holds no numbers. Export the model again."
            )
        return usable(node, name, np.asarray(attribute.value, np.float64).reshape(-1))
    array = factor_of(node, index, writer.constants).reshape(-1)
    if array.size == 1:
        return array
    x = tensor_of(node)
    rank = len(x.shape) if x.shape is not None else writer.constants.array(x).ndim
    shape = [1] * rank
    shape[checked_attribute(node, "channel_axis", 0)] = -1
    return array.reshape(shape)


RULES: dict[str, Rule] = {
    f"{target}{method}Quantizer": rule
    for target in ("Activation", "Weights")
    for method, rule in (("POT", symmetric), ("Symmetric", symmetric), ("Uniform", uniform))
}
