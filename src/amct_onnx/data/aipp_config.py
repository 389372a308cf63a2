"""An AIPP configuration, the file of ATC's ``--insert_op_conf``: read, checked, and written.

Names, defaults and ranges are those of ATC's documentation ("AIPP: configuration file template") and of GE's
insert_op.proto and aipp_op.cc. What only a dynamic AIPP, a raw sensor or a reserved field would do is refused by name.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from amct_onnx.common.plain_text import shown
from amct_onnx.common.proto_classes import message_classes
from amct_onnx.common.typed_json import read_bounded
from amct_onnx.errors import DataError

YUV420SP, XRGB8888, RGB888, YUV400 = "YUV420SP_U8", "XRGB8888_U8", "RGB888_U8", "YUV400_U8"
FORMATS = (YUV420SP, XRGB8888, RGB888, YUV400)
OTHER_FORMATS = (
    "NC1HWC0DI_FP16 NC1HWC0DI_S8 ARGB8888_U8 YUYV_U8 YUV422SP_U8 AYUV444_U8 RAW10 RAW12 RAW16 RAW24 RGB16 RGB20 RGB24 "
    "RGB8_IR RGB16_IR RGB24_IR"
).split()
CHANNELS = range(4)
MATRIX = tuple(tuple(f"matrix_r{r}c{c}" for c in range(3)) for r in range(3))
YUV_TO_BGR = ((298, 516, 0), (298, -100, -208), (298, 0, 409))
RGB_TO_YUV = ((66, 129, 25), (-38, -74, 112), (112, -94, -18))
"""GE's defaults of the matrix: the first for YUV420SP_U8, the second for all others."""
BIAS = (16, 128, 128)
MAX_BYTES = 1 << 20
MAX_SIZE, MAX_PADDING, MAX_FLOAT16 = 4096, 32, 65504
STATIC = "static"
SIZES = (
    "src_image_size_w",
    "src_image_size_h",
    "load_start_pos_w",
    "load_start_pos_h",
    "crop_size_w",
    "crop_size_h",
    "left_padding_size",
    "right_padding_size",
    "top_padding_size",
    "bottom_padding_size",
)
UNSUPPORTED = {
    "related_input_name": "string",
    "input_edge_idx": "repeated uint32",
    "support_rotation": "bool",
    "rotation_angle": "uint32",
    "cpadding_value": "float",
    "single_line_mode": "bool",
    "resize": "bool",
}
"""Fields that are refused when they say something: of Caffe only, reserved, or without public arithmetic."""
IGNORED = {
    "max_src_image_size": "uint32",
    "resize_output_w": "int32",
    "resize_output_h": "int32",
    "raw_rgbir_to_f16_n": "uint32",
}
"""Fields that mean nothing in a static configuration of these formats."""
SWITCHES = ("csc_switch", "rbuv_swap_switch", "ax_swap_switch", "crop", "padding")


@dataclass(frozen=True)
class Crop:
    """What is cut out, in pixels; a size of 0 is the model's."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Padding:
    """Pixels added around the normalised image, and their value."""

    top: int
    bottom: int
    left: int
    right: int
    value: float


@dataclass(frozen=True)
class Csc:
    """Colour conversion: out = (matrix · (in - input_bias) >> 8) + output_bias, in integers."""

    matrix: tuple[tuple[int, ...], ...]
    input_bias: tuple[int, ...]
    output_bias: tuple[int, ...]


@dataclass(frozen=True)
class AippConfig:
    """A static configuration of one input.

    Attributes:
        input_format: one of ``FORMATS``.
        rank: number of the model's input, from 0.
        height, width: of the image that is fed; 0 for the model's.
        swap_rb: exchange the first and third channel, or U and V.
        swap_ax: the fourth channel stands first.
        crop, padding, csc: None when switched off.
        mean: of each of the four channels, integers.
        low, factor: likewise, float32: out = (in - mean - low) * factor.
    """

    input_format: str
    rank: int = 0
    height: int = 0
    width: int = 0
    swap_rb: bool = False
    swap_ax: bool = False
    crop: Crop | None = None
    padding: Padding | None = None
    csc: Csc | None = None
    mean: tuple[int, ...] = (0, 0, 0, 0)
    low: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    factor: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)


def read_aipp(path: str | os.PathLike[str]) -> tuple[AippConfig, ...]:
    """The configuration of each input that a file names.

    Raises:
        DataError: There is no such file, it is not a configuration, or something in it cannot be applied; it is named.
    """
    file = Path(path)
    try:
        text = read_bounded(file, MAX_BYTES).decode()
        message: Any = _message_class()()
        text_format.Parse(text, message)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file. Give the AIPP configuration that ATC was given.") from error
    except (OSError, ValueError, text_format.ParseError, RecursionError) as error:
        reason = shown(" ".join(str(error).split()))
        raise DataError(f"{file}: is not an AIPP configuration ({reason}). Give the file that ATC accepts.") from error
    configs = tuple(_config(op, str(file)) for op in message.aipp_op)
    if not configs:
        raise DataError(f"{file}: holds no aipp_op. Give the file that ATC accepts.")
    ranks = [c.rank for c in configs]
    if len(set(ranks)) != len(ranks):
        raise DataError(f"{file}: two aipp_op have the same related_input_rank. Give each input one.")
    return configs


def aipp_digest(path: str | os.PathLike[str]) -> str:
    """What tells one configuration from another, whatever its file is called; errors as ``read_aipp``."""
    return hashlib.blake2b(repr(read_aipp(path)).encode(), digest_size=6).hexdigest()


def aipp_text(config: AippConfig) -> str:
    """The configuration as ATC reads it; options that are switched off are left out, but for the colour's."""
    channels = range(1 if config.input_format == YUV400 else 3)
    lines = [
        f"aipp_mode: {STATIC}",
        *([f"related_input_rank: {config.rank}"] if config.rank else []),
        f"input_format: {config.input_format}",
        f"src_image_size_w: {config.width}",
        f"src_image_size_h: {config.height}",
    ]
    if config.crop is not None:
        lines += ["crop: true", f"load_start_pos_w: {config.crop.left}", f"load_start_pos_h: {config.crop.top}"]
        lines += [f"crop_size_w: {config.crop.width}", f"crop_size_h: {config.crop.height}"]
    if config.padding is not None:
        sides = ("left", "right", "top", "bottom")
        lines += ["padding: true", *(f"{s}_padding_size: {getattr(config.padding, s)}" for s in sides)]
        lines.append(f"padding_value: {config.padding.value}")
    lines += [f"csc_switch: {_word(config.csc is not None)}", f"rbuv_swap_switch: {_word(config.swap_rb)}"]
    lines += ["ax_swap_switch: true"] if config.swap_ax else []
    if config.csc is not None:
        rows = zip(MATRIX, config.csc.matrix, strict=True)
        lines += [f"{n}: {v}" for names, values in rows for n, v in zip(names, values, strict=True)]
        lines += [f"input_bias_{c}: {v}" for c, v in enumerate(config.csc.input_bias)]
        lines += [f"output_bias_{c}: {v}" for c, v in enumerate(config.csc.output_bias)]
    lines += [f"mean_chn_{c}: {config.mean[c]}" for c in channels if config.mean[c]]
    lines += [f"min_chn_{c}: {config.low[c]}" for c in channels]
    lines += [f"var_reci_chn_{c}: {config.factor[c]}" for c in channels]
    return "\n".join(["aipp_op {", *(f"    {line}" for line in lines), "}"])


def _word(switch: bool) -> str:
    return "true" if switch else "false"


def _message_class() -> Any:
    kinds = {
        **dict.fromkeys(SIZES, "int32"),
        **dict.fromkeys(SWITCHES, "bool"),
        "related_input_rank": "uint32",
        "padding_value": "float",
        **dict.fromkeys((n for row in MATRIX for n in row), "int32"),
        **{f"{side}_bias_{c}": "int32" for side in ("input", "output") for c in range(3)},
        **{f"mean_chn_{c}": "int32" for c in CHANNELS},
        **{f"{name}_chn_{c}": "float" for name in ("min", "var_reci") for c in CHANNELS},
        **UNSUPPORTED,
        **IGNORED,
        "aipp_mode": "Mode",
        "input_format": "Format",
    }
    # only the text is read, so that the numbers are free
    fields = [(name, number, kind) for number, (name, kind) in enumerate(kinds.items(), 1)]
    enums = {
        "Mode": {"undefined": 0, STATIC: 1, "dynamic": 2},
        "Format": {n: i for i, n in enumerate(("UNDEFINED", *FORMATS, *OTHER_FORMATS))},
    }
    messages = {"AippOp": fields, "InsertedOps": [("aipp_op", 1, "repeated AippOp")]}
    return message_classes("amct_onnx.aipp", messages, enums)["InsertedOps"]


def _config(op: Any, file: str) -> AippConfig:
    given = {field.name: value for field, value in op.ListFields()}
    mode = op.DESCRIPTOR.fields_by_name["aipp_mode"].enum_type.values_by_number[given.get("aipp_mode", 0)].name
    kind = op.DESCRIPTOR.fields_by_name["input_format"].enum_type.values_by_number[given.get("input_format", 0)].name
    if mode != STATIC:
        raise DataError(f"{file}: aipp_mode is {mode}; only a static AIPP can be applied. Give aipp_mode: static.")
    if kind not in FORMATS:
        what = "is missing" if kind == "UNDEFINED" else f"{kind} cannot be applied"
        raise DataError(f"{file}: input_format {what}. Give one of {', '.join(FORMATS)}.")
    for name in UNSUPPORTED:
        if given.get(name):
            raise DataError(f"{file}: {name} cannot be applied, as it is reserved in ATC. Leave it out.")
    _check_ranges(given, kind, file)
    number = given.get
    crop = padding = None
    if number("crop"):
        names = ("load_start_pos_h", "load_start_pos_w", "crop_size_h", "crop_size_w")
        crop = Crop(*(number(n, 0) for n in names))
    if number("padding"):
        sizes = {side: number(f"{side}_padding_size", 0) for side in ("top", "bottom", "left", "right")}
        padding = Padding(**sizes, value=number("padding_value", 0.0))
    return AippConfig(
        kind,
        number("related_input_rank", 0),
        number("src_image_size_h", 0),
        number("src_image_size_w", 0),
        number("rbuv_swap_switch", False),
        number("ax_swap_switch", False),
        crop,
        padding,
        _csc(given, kind, file) if number("csc_switch") else None,
        tuple(number(f"mean_chn_{c}", 0) for c in CHANNELS),
        tuple(number(f"min_chn_{c}", 0.0) for c in CHANNELS),
        tuple(number(f"var_reci_chn_{c}", 1.0) for c in CHANNELS),
    )


def _csc(given: dict[str, Any], kind: str, file: str) -> Csc:
    if kind == YUV400:
        raise DataError(f"{file}: csc_switch is true, and {YUV400} has no colours. Give csc_switch: false.")
    default = YUV_TO_BGR if kind == YUV420SP else RGB_TO_YUV
    matrix = tuple(tuple(given.get(n, default[r][c]) for c, n in enumerate(row)) for r, row in enumerate(MATRIX))
    sides = {s: tuple(given.get(f"{s}_bias_{c}", BIAS[c]) for c in range(3)) for s in ("input", "output")}
    none = (0, 0, 0)  # YUV has a bias before the product, RGB behind it
    return Csc(matrix, sides["input"], none) if kind == YUV420SP else Csc(matrix, none, sides["output"])


def _check_ranges(given: dict[str, Any], kind: str, file: str) -> None:
    """The ranges of ATC's documentation.

    Raises:
        DataError: A number is outside of its range.
    """
    ranges = {n: (0, MAX_SIZE) for n in SIZES}
    ranges |= {n: (0, MAX_PADDING) for n in SIZES if n.endswith("padding_size")}
    ranges |= {n: (-(2**15), 2**15 - 1) for row in MATRIX for n in row}
    ranges |= {f"{side}_bias_{c}": (0, 255) for side in ("input", "output") for c in range(3)}
    ranges |= {f"mean_chn_{c}": (0, 255) for c in CHANNELS}
    ranges |= {f"{name}_chn_{c}": (-MAX_FLOAT16, MAX_FLOAT16) for name in ("min", "var_reci") for c in CHANNELS}
    ranges["padding_value"] = (-MAX_FLOAT16, MAX_FLOAT16)
    for name, (low, high) in ranges.items():
        value = given.get(name, 0)
        if not math.isfinite(value) or not low <= value <= high:
            raise DataError(f"{file}: {name} is {value}, outside [{low}, {high}]. Correct it.")
    even = ("src_image_size_w", "src_image_size_h", "load_start_pos_w", "load_start_pos_h")
    odd = [n for n in even if given.get(n, 0) % 2] if kind == YUV420SP else []
    if odd:
        raise DataError(f"{file}: {odd[0]} is {given[odd[0]]}, and {YUV420SP} needs an even number. Correct it.")
    if given.get("src_image_size_w") == 1:
        raise DataError(f"{file}: src_image_size_w is 1, and ATC needs 2 or more. Correct it.")
