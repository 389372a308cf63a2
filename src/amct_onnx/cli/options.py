"""How options are spelled: underscores as the vendor does, dashes as well."""

from __future__ import annotations

import argparse
from typing import Any


def add_option(parser: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    """Add ``--name_with_underscores`` together with its spelling with dashes."""
    spellings = dict.fromkeys([name, "--" + name[2:].replace("_", "-")])
    parser.add_argument(*spellings, **settings)
