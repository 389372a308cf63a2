"""What AIPP makes of uint8 images, as far as ATC's documentation states it; docs/data.md says what is assumed.

Order, as documented: channel swap, crop, colour conversion, mean and factor, padding.
"""

from __future__ import annotations

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.data.aipp_config import XRGB8888, YUV400, YUV420SP, AippConfig, Crop, Csc
from amct_onnx.errors import DataError


def source_size(config: AippConfig, height: int | None, width: int | None) -> tuple[int | None, int | None]:
    """Height and width of the images that are fed.

    Args:
        config: the configuration; without sizes of its own they are the model's.
        height: of the model's input, None where it leaves it free.
        width: likewise.

    Raises:
        DataError: Crop or padding without a size of the source, or an odd size with YUV420SP_U8.
    """
    if config.height and config.width:
        return config.height, config.width
    if config.crop is not None or config.padding is not None:
        raise DataError("AIPP: crop and padding need the size of the source. Give src_image_size_w and _h.")
    size = config.height or height, config.width or width
    if config.input_format == YUV420SP and any(n is not None and n % 2 for n in size):
        raise DataError(f"AIPP: {YUV420SP} needs an even size, not {list(size)}. Give src_image_size_w and _h.")
    return size


def fed_shape(config: AippConfig, height: int, width: int) -> tuple[int, ...]:
    """Shape of one image as a board is fed it: rows, columns, bytes of a pixel.

    A plane has no third axis; NV12 has the rows of U and V, interleaved, below those of Y.
    """
    if config.input_format == YUV420SP:
        return (height * 3 // 2, width)
    if config.input_format == YUV400:
        return (height, width)
    return (height, width, 4 if config.input_format == XRGB8888 else 3)


def apply_aipp(images: Array, config: AippConfig, size: tuple[int | None, ...], kind: np.dtype[np.generic]) -> Array:
    """Images as the model's input gets them.

    Args:
        images: uint8 [N, ...], each of ``fed_shape``.
        config: the configuration.
        size: channels, height and width of the model's input, None where it leaves them free.
        kind: its type: float32 or float16, or uint8, which mean and factor leave alone.

    Returns:
        [N, C, H, W] of that type.

    Raises:
        DataError: The result does not fit the input.
    """
    channels, height, width = size
    planes = _planes(images, config)
    planes = _cropped(planes, config, height, width)
    if config.csc is not None:
        planes = convert_colours(planes, config.csc)
        if channels == 1 and not any(n for row in config.csc.matrix[1:] for n in row):
            planes = planes[:, :1]
    values = planes if kind == np.uint8 else normalise_pixels(planes, config).astype(kind)
    if config.padding is not None:
        values = _padded(values, config)
    if any(want is not None and want != have for want, have in zip(size, values.shape[1:], strict=True)):
        raise DataError(
            f"AIPP gives images of shape {list(values.shape[1:])}, the model takes {list(size)}. Correct crop, padding "
            "and input_format, or give the model that this configuration was written for."
        )
    return np.ascontiguousarray(values)


def convert_colours(planes: Array, csc: Csc) -> Array:
    """(matrix · (in - input_bias) >> 8) + output_bias, cut off at 0 and 255; uint8 [N, 3, H, W]."""
    shifted = planes.astype(np.int32) - np.array(csc.input_bias, np.int32)[:, None, None]
    rows = [sum(np.int32(m) * shifted[:, c] for c, m in enumerate(row)) for row in csc.matrix]
    out = [(np.asarray(row) >> 8) + bias for row, bias in zip(rows, csc.output_bias, strict=True)]
    converted: Array = np.stack(out, 1).clip(0, 255).astype(np.uint8)
    return converted


def normalise_pixels(planes: Array, config: AippConfig) -> Array:
    """(in - mean - min) * factor in float16, rounded after each step, by a table of the 256 values of a pixel."""
    values = np.empty(planes.shape, np.float16)
    for channel in range(planes.shape[1]):
        # the file's numbers are float32, the device's float16
        low, factor = (np.float32(v[channel]).astype(np.float16) for v in (config.low, config.factor))
        with np.errstate(over="ignore"):
            table = ((np.arange(256) - config.mean[channel]).astype(np.float16) - low) * factor
        values[:, channel] = table[planes[:, channel]]
    return values


def _planes(images: Array, config: AippConfig) -> Array:
    """uint8 [N, C, H, W], the channels in the order in which the matrix reads them."""
    if config.input_format == YUV400:
        return images[:, None]
    if config.input_format == YUV420SP:
        height = images.shape[1] * 2 // 3
        luma, chroma = images[:, :height], images[:, height:]
        sides = (chroma[:, :, 0::2], chroma[:, :, 1::2])
        full = [s.repeat(2, 1).repeat(2, 2) for s in (reversed(sides) if config.swap_rb else sides)]
        return np.stack([luma, *full], 1)
    first = 1 if config.input_format == XRGB8888 and config.swap_ax else 0
    colours = images[..., first : first + 3].transpose(0, 3, 1, 2)
    return colours[:, ::-1] if config.swap_rb else colours


def _cropped(planes: Array, config: AippConfig, height: int | None, width: int | None) -> Array:
    crop = config.crop
    if crop is None:
        return planes
    if not (crop.height and crop.width):
        if config.padding is not None or height is None or width is None:
            raise DataError(
                "AIPP: with padding, or a model of free size, nothing tells the size of the crop. Give crop_size_w and "
                "crop_size_h."
            )
        crop = Crop(crop.top, crop.left, crop.height or height, crop.width or width)
    have = planes.shape[2:]
    if crop.top + crop.height > have[0] or crop.left + crop.width > have[1]:
        raise DataError(
            f"AIPP: a crop of {crop.height} x {crop.width} at {crop.top}, {crop.left} leaves the image of {have[0]} x "
            f"{have[1]} (height x width). Correct load_start_pos and crop_size."
        )
    return planes[:, :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def _padded(values: Array, config: AippConfig) -> Array:
    assert config.padding is not None
    p = config.padding
    value = np.float32(p.value)
    filled = value.clip(0, 255).astype(np.uint8) if values.dtype == np.uint8 else value.astype(np.float16)
    sides = ((0, 0), (0, 0), (p.top, p.bottom), (p.left, p.right))
    return np.pad(values, sides, constant_values=filled.astype(values.dtype))
