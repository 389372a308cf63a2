"""Reports as plain JSON values, derived from their dataclasses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

SCALARS = frozenset({str, int, bool, type(None), float})
EXACT = SCALARS - {float}
"""Types whose every value JSON holds."""
FIELDS: dict[type, tuple[str, ...]] = {}


class JsonText(ABC):
    """A value that JSON holds as text."""

    @abstractmethod
    def to_text(self) -> str:
        """The text."""


class JsonReport:
    """What a verb returns: a dataclass that is also a JSON document.

    Attributes:
        SCHEMA_VERSION: the document's first value.
        JSON_ALSO: names of properties, and of methods without arguments, that the document holds behind the fields. Any
            dataclass may have such a list.
        JSON_NOT: names of fields that it does not hold: arrays.
    """

    SCHEMA_VERSION: ClassVar[int]
    JSON_ALSO: ClassVar[tuple[str, ...]] = ()
    JSON_NOT: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values: no NaN, no infinity. The verb's page in docs/ describes them."""
        return {"schema_version": self.SCHEMA_VERSION, **fields_of(self)}


def fields_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain JSON values, less ``JSON_NOT``, and what its ``JSON_ALSO`` names."""
    return {name: plain(held) for name, held in _held(value).items()}


def one_level(value: Any) -> Any:
    """What ``plain`` makes of a value that JSON does not know, with what it holds as it is.

    Raises:
        TypeError: It has no form in JSON.
    """
    if isinstance(value, JsonReport):
        if type(value).to_dict is not JsonReport.to_dict:
            return value.to_dict()
        return {"schema_version": value.SCHEMA_VERSION, **_held(value)}
    if isinstance(value, JsonText):
        return value.to_text()
    if is_dataclass(value):
        return _held(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _held(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that its document holds."""
    values = {name: getattr(value, name) for name in _names(type(value))}
    for name in getattr(value, "JSON_ALSO", ()):
        also = getattr(value, name)
        values[name] = also() if callable(also) else also
    return values


def _names(kind: type) -> tuple[str, ...]:
    """Names of a dataclass's fields that its document holds, looked up once."""
    if kind not in FIELDS:
        left_out = getattr(kind, "JSON_NOT", ())
        FIELDS[kind] = tuple(f.name for f in fields(kind) if f.name not in left_out)
    return FIELDS[kind]


def plain(value: Any) -> Any:
    """A value as plain JSON values; numbers that are not finite become None.

    A tuple of finite numbers or of texts is kept, not copied: a ledger may hold 100,000 scales.
    """
    kind = type(value)
    if kind in EXACT:
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, JsonReport):
        return value.to_dict()
    if isinstance(value, JsonText):
        return value.to_text()
    if is_dataclass(value):
        return fields_of(value)
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        kinds = set(map(type, value))
        if kinds == {float} and all(map(math.isfinite, value)) or kinds <= EXACT:
            return value
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
