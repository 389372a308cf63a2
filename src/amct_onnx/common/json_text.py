"""JSON as written to files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from amct_onnx.common.json_values import JsonReport, one_level, plain
from amct_onnx.common.plain_text import escaped

FORM = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATACLASS


def json_text(content: Mapping[str, Any] | JsonReport) -> str:
    """``json_bytes`` as text."""
    return json_bytes(content).decode()


def json_bytes(content: Mapping[str, Any] | JsonReport) -> bytes:
    """Indented, UTF-8; what is not finite becomes null. A ledger may hold 100,000 scales.

    Names of files that are not UTF-8 stand as messages show them.

    Args:
        content: plain values, or a report, whose plain values are never in memory as a whole.
    """
    try:
        return orjson.dumps(content, option=FORM, default=one_level)
    except TypeError:  # raised for such a name too
        return orjson.dumps(_in_utf8(plain(content)), option=FORM)


def _in_utf8(content: Any) -> Any:
    if isinstance(content, str):
        return content if _is_utf8(content) else escaped(content)
    if isinstance(content, Mapping):
        return {_in_utf8(key): _in_utf8(held) for key, held in content.items()}
    return [_in_utf8(held) for held in content] if isinstance(content, (list, tuple)) else content


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
