"""docs/errors.md lists every class with its bases and every exit code with its number."""

from __future__ import annotations

import re
from pathlib import Path

from amct_onnx import errors
from amct_onnx.cli import exit_codes

PAGE = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")


def test_every_class_is_listed_with_its_base_and_code() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \| 2 \|", PAGE, re.MULTILINE))
    classes = {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.AmctError)}
    assert listed == {n: c.__bases__[-1].__name__ for n, c in classes.items()}
    assert exit_codes.EXIT_BAD_INPUT == 2


def test_every_exit_code_is_listed() -> None:
    listed = {int(n) for n in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert listed == {v for n, v in vars(exit_codes).items() if n.startswith("EXIT_")}
