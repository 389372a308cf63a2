"""Models with operators that ATC does not take."""

from __future__ import annotations

import numpy as np
import onnx

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


@breaks("unknown-operator")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type = "Sigmoidal"
