"""What decides the result of a node on small constants: a graph that computes sizes does the same in each block."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import onnx_ir as ir

from amct_onnx.common.arrays import Array

MAX_BYTES = 1 << 10
"""All inputs and attributes together. Larger ones are not sizes, and rarely computed twice."""
STRINGS = "OSU"
"""numpy's kinds of arrays whose bytes are not their content."""
LISTS = (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS)


def computation(node: ir.Node, inputs: Sequence[Array | None]) -> Hashable | None:
    """A key that is equal only for nodes with equal results; None for strings and more than ``MAX_BYTES``.

    Args:
        node: a deterministic one, without bodies, of the default domain.
        inputs: in the order of the node's; None for those that are left out.
    """
    stored = [a.as_tensor().numpy() for a in node.attributes.values() if a.type == ir.AttributeType.TENSOR]
    arrays = [x for x in (*stored, *inputs) if x is not None]
    if any(x.dtype.kind in STRINGS for x in arrays) or sum(x.nbytes for x in arrays) > MAX_BYTES:
        return None
    contents = tuple(None if i is None else _content(i) for i in inputs)
    attributes = sorted((a.name, a.type.name, _value(a)) for a in node.attributes.values())
    return node.op_type, tuple(attributes), contents


def _content(array: Array) -> tuple[str, tuple[int, ...], bytes]:
    return ir.DataType.from_numpy(array.dtype).name, array.shape, array.tobytes()


def _value(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        return str(_content(attribute.as_tensor().numpy()))
    return repr(tuple(attribute.value) if attribute.type in LISTS else attribute.value)
