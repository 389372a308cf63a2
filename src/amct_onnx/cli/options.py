"""How options are spelled: underscores as the vendor does, dashes as well."""

from __future__ import annotations

import argparse
from typing import Any


def add_option(parser: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    """Add ``--name_with_underscores`` together with its spelling with dashes."""
    spellings = dict.fromkeys([name, "--" + name[2:].replace("_", "-")])
    parser.add_argument(*spellings, **settings)


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Options that decide which layers become int8."""
    add_option(
        parser,
        "--grid_weights",
        choices=("on", "off"),
        default="on",
        help="take float weights without Q/DQ that lie on an int8 grid (default: on)",
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
        help="a weight beyond int8 when less its zero point: float (default), or int8 and a sum of the layer's input",
    )
