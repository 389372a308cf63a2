"""AIPP, ATC's image preprocessing: the hint and configuration for inputs that look like images."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.data.aipp_config import RGB888, YUV400, AippConfig, aipp_text

IMAGE_FORMATS = {1: YUV400, 3: RGB888}
"""AIPP's name of a uint8 image by its number of channels."""


def is_image(dims: tuple[int, ...]) -> bool:
    """Whether a shape is that of images: 4-D with one or three channels."""
    return len(dims) == 4 and dims[1] in IMAGE_FORMATS


def aipp_hint(value: ir.Value, dims: tuple[int, ...]) -> str:
    """A paragraph for a 4-D input of one or three channels; "" for anything else."""
    if not is_image(dims):
        return ""
    if value.dtype == ir.DataType.UINT8:
        return (
            f"Input '{value.name}' is uint8 already: feed images as they are, in NCHW. AIPP would only be needed "
            "for other sizes or colour formats, and expects a float input."
        )
    if value.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        return ""
    return (
        f"Input '{value.name}' looks like an image. To feed uint8 images, let AIPP normalise them on the device: "
        "save the following as aipp.cfg with the mean and 1/deviation of your training, and add --insert_op_conf "
        "aipp.cfg.\n" + aipp_config(dims)
    )


def aipp_config(dims: tuple[int, ...]) -> str:
    """A static AIPP configuration that only converts uint8 to float: result = (pixel - min_chn) * var_reci_chn.

    Args:
        dims: [N, C, H, W] with one or three channels.
    """
    return aipp_text(AippConfig(IMAGE_FORMATS[dims[1]], height=dims[2], width=dims[3], factor=(1 / 255,) * 4))
