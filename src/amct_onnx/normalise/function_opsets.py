"""Functions that import an older opset than the model: raised where every node means the same in the newer one."""

from __future__ import annotations

import onnx
import onnx_ir as ir

OTHER_DEFAULTS = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13, "BatchNormalization": 9, "Upsample": 9, "Resize": 11}
"""Operators whose definition, not only their list of types, changed in this opset under the same attributes."""


def raise_function(function: ir.Function, opset: int) -> None:
    """Let a function import the model's opset of the default domain; it stays when one of its nodes differs there."""
    own = function.opset_imports.get("", opset)
    nodes = list(ir.traversal.RecursiveGraphIterator(function.graph))
    if own < opset and all(_means_the_same(n, own, opset) for n in nodes if n.domain in ("", "ai.onnx")):
        function.opset_imports[""] = opset


def _means_the_same(node: ir.Node, own: int, opset: int) -> bool:
    changed = OTHER_DEFAULTS.get(node.op_type, 0)
    if own < changed <= opset:
        return False
    try:
        old, new = (onnx.defs.get_schema(node.op_type, version) for version in (own, opset))
    except onnx.defs.SchemaError:
        return False
    if old.since_version == new.since_version:
        return True
    kept = set(node.attributes) <= set(new.attributes) and not new.deprecated
    defaults = all(
        name not in new.attributes or old.attributes[name].default_value == new.attributes[name].default_value
        for name in old.attributes
        if name not in node.attributes
    )
    lost = set(old.attributes) - set(new.attributes)
    return kept and defaults and not lost and new.min_input <= len(node.inputs) <= new.max_input
