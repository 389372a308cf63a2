"""Tensors that have another size in a model than in the source, because numbers decide it."""

from __future__ import annotations

from onnx_ir.passes.common import InlinePass

from amct_onnx.graph.sized_by_numbers import sized_by_numbers
from amct_onnx.verbs.compare.measure.sessions import ModelBytes, opened


def names_sized_by_numbers(source: ModelBytes) -> set[str]:
    """Names of the source's tensors that may have another size where other numbers come out, see ``sized_by_numbers``.

    Args:
        source: with the tensors shown, by whose names they are known.
    """
    model = opened(source)
    model.graph.sort()  # a file need not be in order
    return sized_by_numbers(InlinePass()(model).model)
