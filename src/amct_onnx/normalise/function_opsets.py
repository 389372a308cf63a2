"""Functions that import another opset than the model: all nodes get the newest of these opsets.

A node that means the same in that opset is relabelled. Any other gets a domain that tells its opset, so that the
functions can be inlined, and is then raised alone by onnx's converter, which needs neither types nor shapes.

The function's own opset says what its nodes mean. ONNX Runtime reads them by the model's opset: it refuses what has
another form there, and computes other numbers where the form is the same, which is a warning here.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.opset import opset_of
from amct_onnx.normalise.opset import check_raised

OTHER_DEFAULTS = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13, "BatchNormalization": 9, "Upsample": 9, "Resize": 11}
"""Operators whose definition, not only their list of types, changed in this opset under the same attributes."""
OLDER = "amct_onnx.opset."
"""Domain of a node that is still of an older opset, whose number follows."""
DEFAULT_DOMAIN = ("", "ai.onnx")
IR_VERSION = 8


def unify_opsets(model: ir.Model) -> None:
    """Let the model and its functions import one opset, in place; what means something else there is marked."""
    containers: list[tuple[ir.Graph | ir.Function, int]] = [(model.graph, opset_of(model))]
    containers += [(f, _opset_of_function(f, opset_of(model))) for f in model.functions.values()]
    target = max(own for _, own in containers)
    for holder, own in containers:
        imports = holder.opset_imports
        nodes = holder.graph if isinstance(holder, ir.Function) else holder
        marked = _mark(ir.traversal.RecursiveGraphIterator(nodes), own, target) if own < target else False
        imports.pop("ai.onnx", None)
        imports[""] = target
        if marked:
            imports[f"{OLDER}{own}"] = model.opset_imports[f"{OLDER}{own}"] = 1


def raise_older_nodes(model: ir.Model) -> None:
    """Raise every node that ``unify_opsets`` has marked, in place; the functions are inlined.

    Raises:
        UnsupportedModelError: A node that has no form in the newer opset.
    """
    older = [n for n in nodes_of(model) if n.domain.startswith(OLDER)]
    if older:
        editor, target = GraphEditor(model), opset_of(model)
        for node in older:
            own = int(node.domain.removeprefix(OLDER))
            if own < OTHER_DEFAULTS.get(node.op_type, 0):
                warn(
                    model,
                    f"{node.op_type} '{node.name or node.outputs[0].name}' of a function is read by the function's "
                    f"opset {own}. ONNX Runtime reads it by the model's, {target}: there it means something else.",
                )
            _raise(node, own, target, editor)
    for domain in [d for d in model.opset_imports if d.startswith(OLDER)]:
        del model.opset_imports[domain]


def _opset_of_function(function: ir.Function, default: int) -> int:
    imports = function.opset_imports
    return imports.get("", imports.get("ai.onnx", default))


def _mark(nodes: Iterable[ir.Node], own: int, target: int) -> bool:
    """Give each node that means something else in the newer opset the domain of its own; whether there is one."""
    marked = False
    for node in nodes:
        if node.domain in DEFAULT_DOMAIN and not _means_the_same(node, own, target):
            node.domain, marked = f"{OLDER}{own}", True
    return marked


def _raise(node: ir.Node, own: int, target: int, editor: GraphEditor) -> None:
    """Put what onnx's converter makes of a node in its place."""
    node.domain = ""
    name = node.name or node.op_type
    proto = ir.to_proto(node)
    outer = {f"in{i}": v for i, v in enumerate(node.inputs) if v is not None}
    outputs = [f"out{i}" if v.name else "" for i, v in enumerate(node.outputs)]
    proto.input[:] = [f"in{i}" if v is not None else "" for i, v in enumerate(node.inputs)]
    proto.output[:] = outputs
    graph = onnx.helper.make_graph(
        [proto], "one", [_declared(v, n) for n, v in outer.items()], [onnx.ValueInfoProto(name=o) for o in outputs if o]
    )
    source = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", own)], ir_version=IR_VERSION)
    try:
        raised = ir.from_proto(onnx.version_converter.convert_version(source, target))
    except Exception as error:  # the converter raises RuntimeError and its own classes
        raise UnsupportedModelError(
            f"Node '{name}': operator {node.op_type} of opset {own}, in a function, cannot be raised to {target} "
            f"({' '.join(str(error).split())[:200]}). Export the model with one opset."
        ) from error
    check_raised(raised, own, target)
    for key, value in raised.graph.initializers.items():
        assert value.const_value is not None
        outer[key] = editor.constant(f"{name}/{key}", value.const_value)
    parts = [n for n in raised.graph if not (n.op_type == "Constant" and "value" in n.attributes)]
    for part in raised.graph:
        if part not in parts:
            key = part.outputs[0].name or ""
            outer[key] = editor.constant(f"{name}/{key}", part.attributes["value"].as_tensor())
            continue
        label = name if len(parts) == 1 else editor.node_names.take(f"{name}/{part.op_type}")
        inputs = [None if v is None else outer[v.name or ""] for v in part.inputs]
        attributes = list(part.attributes.values())
        new = editor.insert(part.op_type, inputs, label, attributes, before=node, outputs=len(part.outputs))
        outer.update({v.name or "": made for v, made in zip(part.outputs, new.outputs, strict=True)})
    editor.replace(node, [outer[o] for o in outputs])


def _declared(value: ir.Value, name: str) -> onnx.ValueInfoProto:
    """A value's type and shape, where they are known, under another name."""
    proto = ir.to_proto(value) if value.type is not None else onnx.ValueInfoProto()
    proto.name = name
    return proto


def _means_the_same(node: ir.Node, own: int, opset: int) -> bool:
    changed = OTHER_DEFAULTS.get(node.op_type, 0)
    last = "Softmax" in node.op_type and attribute(node, "axis", 1) == -1  # nothing lies behind the axis
    if own < changed <= opset and not last:
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
