"""JSON as it stands in the files that are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


def json_text(content: Mapping[str, Any]) -> str:
    """Indented, UTF-8; what is not finite becomes null. A ledger may hold 100,000 scales."""
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
