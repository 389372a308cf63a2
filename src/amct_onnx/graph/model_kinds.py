"""What a model is among those that this program reads and writes: QAT, deploy or fake-quant."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op

DEPLOY, FAKE_QUANT, QAT = "deploy model", "fake-quant model", "QAT model"
MADE = ".fakequant."
"""In the name of each operator that a fake-quant model quantizes with."""
ASCEND = ("AscendQuant", "AscendDequant", "AscendAntiQuant", "AscendWeightQuant")


def kind_of(nodes: Iterable[ir.Node]) -> tuple[str, str]:
    """The kind of model and the node that shows it, by its output where it has no name.

    Two empty texts for a model without quantizers.
    """
    found: dict[str, str] = {}
    for node in nodes:
        name = node.name or (node.outputs[0].name if node.outputs else "") or ""
        if node.op_type in ASCEND:
            found.setdefault(DEPLOY, name)
        elif node.op_type in LAYER_KINDS and node.domain == "" and _reads_steps(node):
            found.setdefault(FAKE_QUANT, name)
        elif is_op(node, QUANTIZE, DEQUANTIZE):
            found.setdefault(QAT, name)
    # an output of a conversion holds no Q and DQ, so that a source with an odd layer stays a source
    return next(((kind, found[kind]) for kind in (DEPLOY, QAT, FAKE_QUANT) if kind in found), ("", ""))


def _reads_steps(layer: ir.Node) -> bool:
    """Whether a layer multiplies rounded numbers: Mul -> Round -> (Add) -> Clip -> (Sub) in front of it, and no Mul.

    Their names tell an output of a conversion (and the vendor's, which has the same) from a source in this form.
    """
    value = layer.inputs[0] if layer.inputs else None
    found = []
    for _ in range(5):
        node = None if value is None else value.producer()
        if node is None or node.domain != "" or not node.inputs or MADE not in (node.name or ""):
            break
        found.append(node.op_type)
        value = node.inputs[0]
    steps = [op_type for op_type in found if op_type not in ("Add", "Sub")]
    return steps[:3] == ["Clip", "Round", "Mul"] and found[0] in ("Clip", "Sub")
