"""What an evaluator keeps of each sample for a metric that is not a mean (mAP, say): JSON, alike in every process."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from typing import Any

MAX_RECORDS = 256 << 20
"""Bytes of all records of a model, as JSON: they are in memory, and in the state of an interrupted run."""


def record_text(record: Any) -> str:
    """One record as JSON in ASCII; numpy's arrays and numbers become lists and numbers.

    Raises:
        ValueError: A number that is not finite, or a circle.
        TypeError: Anything that JSON does not hold.
    """
    return json.dumps(record, allow_nan=False, default=_plain, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} in a record")


def records_of(texts: Iterable[str]) -> list[Any]:
    """The records themselves."""
    return [json.loads(text) for text in texts]


def packed(texts: list[str]) -> str:
    """All records as one text for a state file, "" for none."""
    if not texts:
        return ""
    return base64.b64encode(zlib.compress("\n".join(texts).encode(), 1)).decode()


def unpacked(text: str) -> list[str]:
    """What ``packed`` made.

    Raises:
        ValueError: It made something else, or more than ``MAX_RECORDS`` bytes.
    """
    if not text:
        return []
    try:
        opened = zlib.decompressobj()
        content = opened.decompress(base64.b64decode(text, validate=True), MAX_RECORDS + 1)
        texts = content.decode("ascii").split("\n")
        if len(content) > MAX_RECORDS or not opened.eof or opened.unused_data:
            raise ValueError("the records are cut off or too long")
        return [record_text(json.loads(t)) for t in texts]
    except (zlib.error, RecursionError) as error:
        raise ValueError(f"cannot be unpacked ({error})") from error
