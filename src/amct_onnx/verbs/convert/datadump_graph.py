"""The ``graph`` of the ledger: what the vendor's accuracy comparison (msaccucmp, option ``-q``) reads in a quant.json.

It tells for each node of the deploy model which node of the source it stands for, so that the outputs of the compiled
model are compared with the right tensors. The form is that of GE's dumped graphs: operators with ``input`` as
"producer:index", and attributes ``_datadump_original_op_names``, ``_datadump_origin_name`` and
``_datadump_origin_output_index``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import onnx_ir as ir

from amct_onnx.plan.factors import Plan

NO_NAME = ""
"""Original name of a node that the conversion put in."""
DUMP_TYPES = {
    ir.DataType.FLOAT: "DT_FLOAT",
    ir.DataType.FLOAT16: "DT_FLOAT16",
    ir.DataType.BFLOAT16: "DT_BF16",
    ir.DataType.DOUBLE: "DT_DOUBLE",
    ir.DataType.INT8: "DT_INT8",
    ir.DataType.UINT8: "DT_UINT8",
    ir.DataType.INT16: "DT_INT16",
    ir.DataType.UINT16: "DT_UINT16",
    ir.DataType.INT32: "DT_INT32",
    ir.DataType.UINT32: "DT_UINT32",
    ir.DataType.INT64: "DT_INT64",
    ir.DataType.UINT64: "DT_UINT64",
    ir.DataType.BOOL: "DT_BOOL",
    ir.DataType.STRING: "DT_STRING",
}
UNDEFINED = "DT_UNDEFINED"
CONSTANTS = {
    "value_int": ir.DataType.INT64,
    "value_ints": ir.DataType.INT64,
    "value_string": ir.DataType.STRING,
    "value_strings": ir.DataType.STRING,
}
"""Attributes of a Constant that hold something else than floats."""
INDICES = frozenset("Shape Size ArgMax ArgMin NonZero".split())
TRUTHS = frozenset("Equal Less LessOrEqual Greater GreaterOrEqual Not And Or Xor IsNaN IsInf".split())
Graph = dict[str, Any]


def datadump_graph(
    model: ir.Model, plan: Plan, nodes: Mapping[str, tuple[str, ...]], source_names: Collection[str]
) -> tuple[Graph, ...]:
    """One graph with the nodes of the deploy model's main graph.

    Args:
        model: the deploy model.
        plan: of the conversion.
        nodes: name of a layer -> names of the nodes that stand for it, the one with its result last.
        source_names: names of the nodes of the user's file.
    """
    originals: dict[str, tuple[str, ...]] = {}
    for site in plan.sites:
        *inner, last = nodes[site.node]
        originals.update(dict.fromkeys(inner, (NO_NAME,)))
        originals[last] = tuple(n for n in (site.node, *site.absorbed) if n in source_names) or (NO_NAME,)
    types: dict[ir.Value, ir.DataType | None] = {}
    ops = []
    for index, node in enumerate(model.graph):
        types.update({v: v.dtype or _type_of(node, types) for v in node.outputs})
        name = node.name or ""
        own = (name,) if name in source_names else (NO_NAME,)
        ops.append(_op(node, index, originals.get(name, own), types))
    return ({"name": model.graph.name or "graph", "op": ops},)


def _op(
    node: ir.Node, index: int, original: tuple[str, ...], types: Mapping[ir.Value, ir.DataType | None]
) -> dict[str, Any]:
    return {
        "name": node.name or "",
        "type": node.op_type,
        "id": index,
        "input": [_place(v) for v in node.inputs if v is not None],
        "attr": [{"key": "_datadump_original_op_names", "value": {"list": {"s": list(original)}}}],
        "output_desc": [_output(types[v], number, original[-1]) for number, v in enumerate(node.outputs)],
    }


def _place(value: ir.Value) -> str:
    """The maker of a tensor and the number of its output; graph inputs and constants are nodes of their own in GE."""
    node = value.producer()
    return f"{value.name}:0" if node is None else f"{node.name}:{value.index()}"


def _type_of(node: ir.Node, types: Mapping[ir.Value, ir.DataType | None]) -> ir.DataType | None:
    """The element type of a result that declares none: most operators keep that of their first input."""
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int())
    if node.op_type in ("Constant", "ConstantOfShape"):
        value = node.attributes.get("value")
        if value is not None and value.type == ir.AttributeType.TENSOR:
            return value.as_tensor().dtype
        return next((kind for name, kind in CONSTANTS.items() if name in node.attributes), ir.DataType.FLOAT)
    if node.op_type in INDICES | TRUTHS:
        return ir.DataType.INT64 if node.op_type in INDICES else ir.DataType.BOOL
    first = node.inputs[1 if node.op_type == "Where" else 0] if node.inputs else None
    return None if first is None else types.get(first, first.dtype)


def _output(kind: ir.DataType | None, number: int, origin: str) -> dict[str, Any]:
    return {
        "dtype": UNDEFINED if kind is None else DUMP_TYPES.get(kind, UNDEFINED),
        "attr": [
            {"key": "_datadump_origin_name", "value": {"s": origin}},
            {"key": "_datadump_origin_output_index", "value": {"i": number}},
        ],
    }
