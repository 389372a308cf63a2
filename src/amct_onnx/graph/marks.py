"""Read what was noted on a node or a value, without the stores that onnx-ir makes when it is asked for one.

A store takes 450 bytes, and hardly any node or value has an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

Item = ir.Node | ir.Value | ir.Graph
MARKS, TEXTS = "_metadata", "_metadata_props"
MADE_LATE = all(hasattr(ir.Value(name=""), store) for store in (MARKS, TEXTS))
"""Whether onnx-ir makes the stores when asked, as 1.1 does."""


def marks_of(item: Item) -> Mapping[str, Any]:
    """The entries of ``item.meta``, to be read only."""
    return (getattr(item, MARKS) or {}) if MADE_LATE else item.meta


def texts_of(item: Item) -> dict[str, str] | None:
    """A copy of ``item.metadata_props``, which is written to files; None where there is none."""
    texts = getattr(item, TEXTS) if MADE_LATE else item.metadata_props
    return dict(texts) if texts else None
