"""Reports as plain JSON values."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amct_onnx.common.json_values import JsonReport, JsonText, plain


class Name(JsonText):
    def to_text(self) -> str:
        return "a name"


@dataclass(frozen=True)
class Row:
    JSON_ALSO = ("doubled",)

    value: float
    parts: tuple[float, ...] = ()

    @property
    def doubled(self) -> float:
        return 2 * self.value


@dataclass(frozen=True)
class Report(JsonReport):
    SCHEMA_VERSION = 3
    JSON_ALSO = ("summary",)

    rows: tuple[Row, ...]
    names: dict[str, Name]
    inner: Report | None = None

    def summary(self) -> str:
        return f"{len(self.rows)} rows"


def test_fields_come_in_order_and_what_the_report_adds_behind_them() -> None:
    inner = Report((), {})
    found = Report((Row(1.5),), {"n": Name()}, inner).to_dict()
    assert list(found) == ["schema_version", "rows", "names", "inner", "summary"]
    assert found["rows"] == [{"value": 1.5, "parts": (), "doubled": 3.0}]
    assert found["names"] == {"n": "a name"} and found["summary"] == "1 rows"
    assert found["inner"] == inner.to_dict() and found["inner"]["schema_version"] == 3


def test_many_numbers_are_not_copied() -> None:
    scales = tuple(np.random.default_rng(0).random(1000).tolist())
    assert plain(Row(1.0, scales))["parts"] is scales


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda v: st.lists(v).map(tuple))
)
def test_json_holds_every_value_and_no_number_that_is_not_finite(value: object) -> None:
    def expected(v: object) -> object:
        if isinstance(v, tuple):
            return [expected(e) for e in v]
        return None if isinstance(v, float) and not math.isfinite(v) else v

    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected(value)
