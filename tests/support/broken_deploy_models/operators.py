"""Models with operators that ATC does not take."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from support.broken_deploy_models.registry import breaks
from support.deploy_models import insert_behind, node, set_initializer


@breaks("foreign-domain")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv.quant").domain = "amct.customop"


@breaks("leftover-quantizer")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "scale", np.array(0.1, np.float32))
    insert_behind(model, "s1", "QuantizeLinear", ["scale"])


@breaks("no-plugin")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type = "AscendWeightQuant"


@breaks("made-by-compiler")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv.dequant").op_type = "AscendRequant"


@breaks("operator-not-registered")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type = "Sigmoidal"


@breaks("operator-not-registered", "opset-undocumented")
def _(model: onnx.ModelProto) -> None:
    """Above the range of most operators."""
    model.opset_import[0].version = 19


@breaks("operator-not-registered")
def _(model: onnx.ModelProto) -> None:
    """Below it."""
    model.opset_import[0].version = 7


@breaks("operator-not-registered")
def _(model: onnx.ModelProto) -> None:
    """Registered up to 17."""
    model.opset_import[0].version = 18
    node(model, "sigmoid1").op_type = "ReduceL2"


@breaks("operator-not-registered")
def _(model: onnx.ModelProto) -> None:
    """Of a domain that the parser knows, but without its opset_import entry."""
    node(model, "sigmoid1").op_type, node(model, "sigmoid1").domain = "NPUFastGelu", "npu"


@breaks("operator-newer")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18
    node(model, "sigmoid1").op_type = "Mish"


@breaks("operator-unproven")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 14
    node(model, "sigmoid1").op_type = "HardSwish"


@breaks("domain-newer", "opset-entries")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type, node(model, "sigmoid1").domain = "NPUFastGelu", "npu"
    model.opset_import.append(helper.make_opsetid("npu", 1))


@breaks("input-count")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").input.append("x")


@breaks("input-count")
def _(model: onnx.ModelProto) -> None:
    """A Conv of four inputs, which the plugin itself refuses."""
    node(model, "conv").input.append("conv.b")


@breaks("input-count")
def _(model: onnx.ModelProto) -> None:
    del node(model, "sum").input[1]


@breaks("output-count")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid2").output.append("second")
