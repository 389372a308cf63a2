"""A model that is an output of a conversion is refused as what it is."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.errors import NoQuantizerError
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.model_kinds import DEPLOY, FAKE_QUANT, kind_of

SHOWS = {DEPLOY: "is an operator of Ascend", FAKE_QUANT: "reads integers that Mul, Round and Clip make"}


def refuse_converted_model(model: ir.Model) -> None:
    """Let other models pass.

    Raises:
        NoQuantizerError: The model is a deploy or a fake-quant model.
    """
    kind, node = kind_of(nodes_of(model))
    if kind in SHOWS:
        raise NoQuantizerError(
            f"This is a {kind}, the output of a conversion: its node '{node}' {SHOWS[kind]}. Give the QAT model that "
            "it was converted from."
        )
