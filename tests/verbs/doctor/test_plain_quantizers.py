"""The doctor on types and blocks that the opset of its reference has not."""

from __future__ import annotations

from pathlib import Path

import pytest

import amct_onnx
from support.corner_models import E4M3, INT4, INT8, INT16, activation, model_with, quantized

CORNERS = {
    "int4": activation(INT4),
    "int16": activation(INT16),
    "float8": activation(E4M3),
    "blocks": activation(INT8, "b", "axis = 0, block_size = 1"),
    "weight of int4": quantized(INT4, "s4"),
    "weight of int4 in blocks": quantized(INT4, "k", "axis = 0, block_size = 2"),
}


@pytest.mark.parametrize("kind", CORNERS)
def test_every_type_is_judged(kind: str, tmp_path: Path) -> None:
    """The two int8 layers beside the corner are computed exactly, and one of int4; as written, the model is right."""
    report = amct_onnx.doctor(model_with(CORNERS[kind], tmp_path), feeds=1)
    assert (report.exact_layers, len(report.float_layers)) == ((3, 0) if kind == "int4" else (2, 1))
    (as_written,) = (s for s in report.settings if s.name == "as written (AMCT_SO)")
    assert as_written.verdict in ("equal", "rounding")
