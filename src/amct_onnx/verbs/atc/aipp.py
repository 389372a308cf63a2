"""AIPP, ATC's image preprocessing: the hint and configuration for inputs that look like images."""

from __future__ import annotations

import onnx_ir as ir

IMAGE_FORMATS = {1: "YUV400_U8", 3: "RGB888_U8"}
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
    channels = [f"    min_chn_{c}: 0.0" for c in range(dims[1])]
    channels += [f"    var_reci_chn_{c}: 0.00392156862745098" for c in range(dims[1])]
    lines = [
        "aipp_op {",
        "    aipp_mode: static",
        f"    input_format: {IMAGE_FORMATS[dims[1]]}",
        f"    src_image_size_w: {dims[3]}",
        f"    src_image_size_h: {dims[2]}",
        "    csc_switch: false",
        "    rbuv_swap_switch: false",
        *channels,
        "}",
    ]
    return "\n".join(lines)
