"""The version of the default domain that a model imports."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.errors import UnsupportedModelError


def opset_of(model: ir.Model) -> int:
    """The version of the default domain.

    Raises:
        UnsupportedModelError: The model imports none.
    """
    versions = [v for d, v in model.opset_imports.items() if d in ("", "ai.onnx")]
    if not versions:
        raise UnsupportedModelError("The model imports no opset of the default domain. Export it again.")
    return versions[0]
