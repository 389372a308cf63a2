"""What is not a path is said by its name, in every function that takes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import amct_onnx
from amct_onnx.common.paths import check_paths
from amct_onnx.convert_model import convert_model
from amct_onnx.errors import SettingError

WRONG = (None, [1], 3, b"x", onnx.ModelProto())
CALLS: dict[str, Callable[[Any], Any]] = {
    "model": lambda v: amct_onnx.compare(v, "m", []),
    "save_path": lambda v: amct_onnx.compare("m.onnx", v, []),
    "report": lambda v: amct_onnx.compare("m.onnx", "m", [], report=v or 1),
    "float_model": lambda v: amct_onnx.compare("m.onnx", "m", [], float_model=v or 1),
    "model ": lambda v: amct_onnx.simulate(v, [], "m"),
    "save_path ": lambda v: amct_onnx.convert_qat_model("m.onnx", v),
    "record_file": lambda v: amct_onnx.convert_qat_model("m.onnx", "m", v or 1),
    "scale_offset_record_file": lambda v: convert_model("m.onnx", v, "m"),
    "model_file": lambda v: amct_onnx.quantize_bias(v, "m.onnx"),
    "model  ": lambda v: amct_onnx.doctor(v or 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_value_of_another_kind_is_named(name: str) -> None:
    told = rf"^{name.strip()} is .*(Give a path, as str or pathlib\.Path|give its path)\.$"
    for value in WRONG:
        with pytest.raises(SettingError, match=told):
            CALLS[name](value)


def test_devices_are_names() -> None:
    for wrong in (None, 3, [1]):
        with pytest.raises(SettingError, match="devices are names"):
            amct_onnx.compare("m.onnx", "m", [], devices=wrong)  # type: ignore[arg-type]


def test_paths_of_any_kind_pass() -> None:
    check_paths("left_out", one="a", other=Path("b"), left_out=None)
    with pytest.raises(SettingError, match="one is a ModelProto, which is not taken here. Save it"):
        check_paths(one=onnx.ModelProto())
