"""JSON as written to files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from amct_onnx.common.plain_text import escaped

FORM = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def json_text(content: Mapping[str, Any]) -> str:
    """``json_bytes`` as text."""
    return json_bytes(content).decode()


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Indented, UTF-8; what is not finite becomes null. A ledger may hold 100,000 scales.

    Names of files that are not UTF-8 stand as messages show them.
    """
    try:
        return orjson.dumps(content, option=FORM)
    except TypeError:  # raised for such a name too
        return orjson.dumps(_in_utf8(content), option=FORM)


def _in_utf8(content: Any) -> Any:
    if isinstance(content, str):
        return content if _is_utf8(content) else escaped(content)
    if isinstance(content, Mapping):
        return {_in_utf8(key): _in_utf8(held) for key, held in content.items()}
    return [_in_utf8(held) for held in content] if isinstance(content, (list, tuple)) else content


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
