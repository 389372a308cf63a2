"""Shared options. Each is spelled with underscores, as the vendor does, and with dashes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amct_onnx.data.images import ImageOptions


DEVICE_NAMES = "a chip (Ascend310P3, 310P, 910B, A2, 950), or reference, ascend950, a2, 310p, 310"
"""For the help; ``device.chips`` has all names, and is not imported before it is needed."""
CHIP_NAMES = "any name, such as Ascend310P3, 310P, Ascend910B4, 910B, A2, 950"


def add_option(parser: argparse._ActionsContainer, name: str, **settings: Any) -> None:
    """Add ``--name_with_underscores`` together with its spelling with dashes."""
    spellings = dict.fromkeys([name, "--" + name[2:].replace("_", "-")])
    parser.add_argument(*spellings, **settings)


def add_all_option(parser: argparse.ArgumentParser) -> None:
    """Option that shows every row of a table."""
    add_option(
        parser, "--all", action="store_true", dest="everything", help="print all rows of a table of more than 30"
    )


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Options that decide which layers become int8."""
    add_option(
        parser,
        "--grid_weights",
        choices=("on", "off"),
        default="on",
        help="convert float weights without Q/DQ whose values lie on an int8 grid (default: on)",
    )
    add_option(
        parser,
        "--gemm_per_channel",
        choices=("mul", "vector", "refuse"),
        default="mul",
        help="a Gemm or MatMul with a scale per channel: one scale and a Mul (default), a vector deq_scale, or float",
    )
    add_option(
        parser,
        "--asymmetric_weights",
        choices=("refuse", "sum"),
        default="refuse",
        help="weights that do not fit int8 after subtracting the zero point: float (default), or int8 and an input sum",
    )


def add_data_options(parser: argparse.ArgumentParser, *, required: bool, otherwise: str = "") -> None:
    """Add --data and the options that tell how to read it; see docs/data.md.

    Args:
        parser: parser of the verb.
        required: whether the verb needs data.
        otherwise: what is used without, for the help.
    """
    kinds = ".npz, .npy or .bin file or a folder of them, folder of images, or Python file with feeds()"
    add_option(parser, "--data", required=required, help=kinds + (f" (default: {otherwise})" if otherwise else ""))
    add_option(parser, "--input_shape", default="", help='shape of one feed: "input:1,3,224,224;mask:1,5"')
    add_option(
        parser,
        "--input_type",
        default="",
        help='type of the numbers in a .bin: "input:uint8" (default: the type of the input)',
    )
    add_option(parser, "--aipp", metavar="AIPP.cfg", help="ATC's AIPP configuration, applied to uint8 images")
    group = parser.add_argument_group("images", "a folder of images becomes (pixel * scale - mean) / std")
    whole, numbers = _numbers(int), _numbers(float)
    add_option(group, "--image_resize", type=whole, default=(), help="shorter side, or height,width")
    add_option(group, "--image_crop", type=whole, default=(), help="size, or height,width, cut out of the middle")
    add_option(group, "--image_mean", type=numbers, default=(0.0,), help="one number, or one per channel (default: 0)")
    add_option(group, "--image_std", type=numbers, default=(1.0,), help="one number, or one per channel (default: 1)")
    add_option(group, "--image_scale", type=float, help="default: 1/255 for a float input, 1 for uint8")
    add_option(group, "--image_layout", choices=("NCHW", "NHWC"), default="", help="default: by the input's shape")
    add_option(group, "--image_color", choices=("rgb", "bgr", "gray"), default="", help="default: by the channels")
    filters = ("nearest", "bilinear", "bicubic", "lanczos")
    add_option(
        group, "--image_filter", choices=filters, default="bilinear", help="filter of the resize (default: bilinear)"
    )


def data_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What ``add_data_options`` declared, as the keyword arguments of ``open_data``."""
    return {
        "input_shape": arguments.input_shape,
        "input_type": arguments.input_type,
        "images": _image_options(arguments),
        "aipp": arguments.aipp,
    }


def _image_options(arguments: argparse.Namespace) -> ImageOptions:
    from amct_onnx.data.images import ImageOptions

    names = ("resize", "crop", "mean", "std", "scale", "layout", "color", "filter")
    return ImageOptions(**{n: getattr(arguments, f"image_{n}") for n in names})


def _numbers(kind: type[int] | type[float]) -> Any:
    def numbers(text: str) -> tuple[int | float, ...]:
        return tuple(kind(n) for n in text.split(","))

    return numbers
