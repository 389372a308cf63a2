"""ATC's notation for the shapes of a model's inputs."""

from __future__ import annotations

import pytest

from amct_onnx.common.input_shape import parse_input_shape
from amct_onnx.errors import DataError, SettingError


def test_input_shape_notation() -> None:
    assert parse_input_shape("a:b:1,3 ; c:2;", DataError) == {"a:b": (1, 3), "c": (2,)}
    assert parse_input_shape("a:;b: 4 , 5", DataError) == {"a": (), "b": (4, 5)}
    assert parse_input_shape("", DataError) == {}


@pytest.mark.parametrize("text", ["x", "x:1,a", "x:-1,3", ":1", "x:0", "x:1;x:1"])
def test_other_notation_is_refused(text: str) -> None:
    for error in (DataError, SettingError):
        with pytest.raises(error, match="^input_shape: "):
            parse_input_shape(text, error)
