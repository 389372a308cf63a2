"""Functions that break a good deploy model, by the rules of ``check`` that they break."""

from __future__ import annotations

from collections.abc import Callable

import onnx

Break = Callable[[onnx.ModelProto], None]
BREAKS: dict[str, list[Break]] = {}


def breaks(*rules: str) -> Callable[[Break], Break]:
    """Register a function under the rules that its model breaks."""

    def register(function: Break) -> Break:
        for rule in rules:
            BREAKS.setdefault(rule, []).append(function)
        return function

    return register
