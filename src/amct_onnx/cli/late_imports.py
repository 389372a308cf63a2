"""Modules that a command does not import before something of them is used, because most commands use nothing of them.

onnx-ir imports sympy for arithmetic on symbolic sizes. That takes as long as the rest of onnx-ir, on every start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

LATE = ("sympy", "onnx_ir._symbolic_shapes")
"""The second takes functions from the first while it is imported. A name that does not exist changes nothing."""


class _LateFinder(MetaPathFinder):
    """Finds the modules named above as Python does, and lets them run on the first access to an attribute."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for a module that is imported at once, by the finders that follow."""
        if fullname not in LATE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def import_late() -> bool:
    """Begin with it, unless onnx-ir is there already; whether the process is this command's alone."""
    alone = "onnx_ir" not in sys.modules
    if alone:
        sys.meta_path.insert(0, _LateFinder())
    return alone
