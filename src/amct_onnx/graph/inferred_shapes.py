"""Shapes that an inference has found: kept beside the graph, whose declarations stay as the file has them.

Inference costs as much as the rest of normalisation, and the cost of a deploy model asks for the same shapes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

INFERRED = "amct_onnx.inferred_shapes"
"""Key in a graph's meta: name of a tensor -> its shape."""


def keep_inferred(model: ir.Model, values: Iterable[ir.Value]) -> None:
    """Keep the shapes that tensors have now, each axis of which is known or has a name."""
    model.graph.meta[INFERRED] = {v.name: v.shape for v in values if v.name and v.shape is not None}


def inferred_shapes(model: ir.Model) -> Mapping[str, ir.Shape]:
    """Name of a tensor -> its shape. Of tensors that were made since, nothing is known."""
    known: Mapping[str, ir.Shape] = model.graph.meta.get(INFERRED, {})
    return known
