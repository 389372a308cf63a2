"""Tensors whose size numbers decide: as many elements as a comparison lets through, boxes as many as do not overlap."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from amct_onnx.graph.edit import bodies_of

DECIDED = frozenset("NonZero NonMaxSuppression Unique Range StringSplit If Loop Scan SequenceMap".split())
"""Operators all of whose inputs decide; of those with bodies it may be any number that these read."""
DECIDING: dict[str, tuple[int, ...]] = {
    **dict.fromkeys("Compress Reshape Expand Tile TopK OneHot Split SplitToSequence CenterCropPad DFT".split(), (1,)),
    **dict.fromkeys("ConstantOfShape HannWindow HammingWindow BlackmanWindow".split(), (0,)),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
    "Upsample": (1,),
    "Resize": (1, 2, 3),
    "MaxUnpool": (2,),
    "AffineGrid": (1,),
    "Col2Im": (1, 2),
    "STFT": (1, 3),
}
"""Of other operators the inputs whose numbers decide how many elements a result has."""


def sized_by_numbers(model: ir.Model) -> set[str]:
    """Names of the graph's tensors that may have another size for other numbers in inputs of the same shapes.

    What is computed of a tensor of such a size counts as one. Sizes that only Shape and Size lead to are not numbers
    of the data, and constants are not either. Operators that ONNX does not have count as if they decided no size.

    Args:
        model: its nodes sorted, without functions; only read.
    """
    numbers: set[ir.Value] = {v for v in model.graph.inputs if v.const_value is None}
    sized: set[ir.Value] = set()
    for node in model.graph:
        read = set(_read(node))
        if node.op_type in ("Shape", "Size") and not node.domain:
            numbers.update(node.outputs if read & sized else ())
            continue
        if read & numbers:
            numbers.update(node.outputs)
        if read & sized or _deciding(node) & numbers:
            sized.update(node.outputs)
    return {v.name for v in sized if v.name}


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """What a node and the nodes of its bodies read."""
    yield from (v for v in node.inputs if v is not None)
    for body in bodies_of(node):
        yield from (v for v in body.outputs if v is not None)
        for inner in ir.traversal.RecursiveGraphIterator(body):
            yield from (v for v in inner.inputs if v is not None)


def _deciding(node: ir.Node) -> set[ir.Value]:
    """What a node reads whose numbers decide the size of a result."""
    if node.domain not in ("", "ai.onnx"):
        return set()
    if node.op_type in DECIDED:
        return set(_read(node))
    positions = DECIDING.get(node.op_type, ())
    return {v for i, v in enumerate(node.inputs) if v is not None and i in positions}
