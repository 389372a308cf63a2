"""Choose the tensor of a planned layer that takes up the rounding of its bias, and compute its new content.

A layer and its tail give y = a * acc * s + bias; the plan holds integers * deq_scale - bias for each channel. That
difference is added to the last addend on the way to y: the layer's own bias when nothing follows, the constant of its
Add, or the B of its last BatchNormalization. The others stay as they are, so that one tensor per layer changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from amct_onnx.common import arithmetic
from amct_onnx.common.arrays import Array
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.layers import LAYER_KINDS, Layout
from amct_onnx.plan.bias_errors import bias_error_of
from amct_onnx.plan.factors import Site
from amct_onnx.plan.ledger import BiasError

BATCH_NORM_B = 2


@dataclass(frozen=True)
class Correction:
    """The new content of one input of one node.

    Attributes:
        node: node of the normalised model.
        index: index of the input.
        array: array of the input's type; of its shape unless that is one number for channels that differ now.
        after: error of rounding with the new content.
    """

    node: ir.Node
    index: int
    array: Array
    after: BiasError | None


def correction_of(site: Site, nodes: Mapping[str, ir.Node], constants: ConstantEvaluator) -> Correction | None:
    """The change that gives the source the bias that the int8 layer will add; None when it has it already.

    Args:
        site: a planned layer.
        nodes: nodes of the normalised model, by name.
        constants: its evaluator.
    """
    if site.bias is None or site.bias_error is None or not np.any(site.bias_error):
        return None
    layer = nodes[site.node]
    node, index = _addend(layer, [nodes[name] for name in site.absorbed])
    value = node.inputs[index]
    assert value is not None
    old = np.asarray(constants.array(value))
    beta = node.attributes["beta"].as_float() if node is layer and "beta" in node.attributes else 1.0
    addend = old.astype(np.float64).reshape(-1)
    rounded = (addend + site.bias_error / beta).astype(old.dtype)
    if old.size != rounded.size and not np.all(rounded == rounded[0]):
        # one number for all channels; the layer's own bias is one row of them
        layout = Layout(LAYER_KINDS[layer.op_type])
        array = rounded if node is layer else layout.along_result(rounded, site.rank)
    else:
        array = rounded[: old.size].reshape(old.shape)
    if np.array_equal(array, old):
        return None
    scale = site.deq_scale.astype(np.float64)
    total = site.bias * scale - site.bias_error + (array.astype(np.float64).reshape(-1) - addend) * beta
    left = arithmetic.bias_integers(total, site.deq_scale) * scale - total
    return Correction(node, index, array, bias_error_of(replace(site, bias_error=left)))


def _addend(layer: ir.Node, tail: list[ir.Node]) -> tuple[ir.Node, int]:
    """The node whose input is added last, and the index of that input."""
    if not tail:
        index = LAYER_KINDS[layer.op_type].bias_input
        assert index is not None  # a layer without a bias input has its bias in its tail
        return layer, index
    last, before = tail[-1], (tail[-2] if len(tail) > 1 else layer).outputs[0]
    if last.op_type == "BatchNormalization":
        return last, BATCH_NORM_B
    return last, 0 if last.inputs[1] is before else 1
