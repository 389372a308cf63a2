"""What onnx-ir writes and we do not: the type and shape of an initializer a second time."""

from __future__ import annotations

import onnx


def without_declared_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the types of initializers that say no more than the initializers themselves."""
    constants = {t.name for t in model.graph.initializer}
    for info in list(model.graph.value_info):
        if info.name in constants and not info.doc_string and not info.metadata_props:
            model.graph.value_info.remove(info)
    return model
