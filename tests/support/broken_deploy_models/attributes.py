"""Models whose convolutions and Gemms have attributes that ATC misreads."""

from __future__ import annotations

import numpy as np
import onnx

from support.broken_deploy_models.registry import breaks
from support.deploy_models import node, set_attribute, set_initializer


@breaks("attribute-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", pads=[1.0, 1.0, 1.0, 1.0])


@breaks("attribute-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "gemm", alpha=2)


@breaks("conv-geometry")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", kernel_shape=None, strides=None, pads=None, dilations=None)


@breaks("conv-kernel-shape")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", kernel_shape=None)


@breaks("conv-axes")
def _(model: onnx.ModelProto) -> None:
    _rewrite(model, kernel_shape=[3, 3], strides=[1])


@breaks("conv-axes")
def _(model: onnx.ModelProto) -> None:
    _rewrite(model, kernel_shape=[3, 3], pads=[1, 1])


@breaks("conv-axes")
def _(model: onnx.ModelProto) -> None:
    _rewrite(model, kernel_shape=[3, 3, 3, 3], pads=[1, 1, 1, 1])


@breaks("conv-axes", "conv-3d")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.w", np.ones((32, 32, 1, 3, 3), np.int8))
    _rewrite(model, kernel_shape=[1, 3, 3])


def _rewrite(model: onnx.ModelProto, **attributes: list[int]) -> None:
    """Conv with these attributes alone, in this order."""
    set_attribute(model, "conv", kernel_shape=None, strides=None, pads=None, dilations=None)
    for name, value in attributes.items():
        set_attribute(model, "conv", **{name: value})


@breaks("conv-3d-dilation")
def _(model: onnx.ModelProto) -> None:
    _as_3d(model, "conv")
    set_attribute(model, "conv", dilations=[2, 1, 1])


@breaks("conv-transpose-kernel-shape")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "deconv", kernel_shape=None)


@breaks("odd-pads")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", pads=[1, 1, 1])


def _as_3d(model: onnx.ModelProto, name: str) -> None:
    set_initializer(model, f"{name}.w", np.ones((32, 32, 1, 3, 3), np.int8))
    ones = [1, 1, 1]
    set_attribute(model, name, kernel_shape=[1, 3, 3], strides=ones, dilations=ones, pads=[0, 1, 1, 0, 1, 1])


@breaks("conv-auto-pad-3d", "conv-3d")
def _(model: onnx.ModelProto) -> None:
    _as_3d(model, "conv")
    set_attribute(model, "conv", auto_pad="SAME_UPPER", pads=None)


@breaks("conv-transpose-3d")
def _(model: onnx.ModelProto) -> None:
    _as_3d(model, "deconv")


@breaks("auto-pad")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", auto_pad="SAME_LOWER", pads=None)


@breaks("conv-transpose-output-shape")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "deconv", output_shape=[8, 8])


@breaks("empty-input")
def _(model: onnx.ModelProto) -> None:
    node(model, "deconv").input.append("")


@breaks("gemm-alpha-dropped", "gemm-factors")
def _(model: onnx.ModelProto) -> None:
    del node(model, "gemm").input[2]
    set_attribute(model, "gemm", alpha=0.5)


@breaks("gemm-factors")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "gemm", beta=2.0)


@breaks("gemm-trans-a")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "gemm", transA=1)


@breaks("gemm-trans-b")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "gemm", transB=1)
    set_initializer(model, "gemm.w", np.ones((16, 32), np.int8))


@breaks("conv-transpose-dilation")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "deconv", dilations=[2, 2])
