"""What a DeploySession refuses or warns about, by the name of the node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from amct_onnx import DeploySession
from amct_onnx.errors import ModelFileError, ModelNotFoundError, SettingError, UnsupportedModelError
from support.device_models import (
    F32,
    dequant,
    int8,
    model,
    packed,
    quant,
)
from support.golden_models import GOLDENS

TIDY = GOLDENS / "qat" / "net" / "m_deploy_model.onnx"
WEIGHT = {"w": int8(3, 2), "deq": packed([0.5, 0.25])}
MM = helper.make_node("MatMul", ["q", "w"], ["m"], "mm")
NO_SCALE = helper.make_node("AscendQuant", ["x"], ["q"], "bad", scale=1, offset=0.0)


@pytest.mark.parametrize(
    ("nodes", "constants", "text"),
    [
        ([NO_SCALE, MM, dequant("m", "y")], {}, "'bad' .*'scale' is missing or not a FLOAT"),
        ([quant("x", "q", 0.0), MM, dequant("m", "y")], {}, "scale 0.0 is not positive"),
        ([quant("x", "q", 1.0, 200), MM, dequant("m", "y")], {}, "offset 200.0 is not an integer"),
        ([quant("x", "q", 1.0, round_mode="Floor"), MM, dequant("m", "y")], {}, "round_mode 'Floor'"),
        ([quant("x", "q", 1.0), MM, dequant("m", "y", dtype=27)], {}, "dtype 27 is not simulated"),
        ([quant("x", "q", 1.0), MM, dequant("m", "y")], {"deq": packed([1, 2, 3])}, "3 scales for 2 output channels"),
        ([quant("x", "q", 1.0), MM, dequant("m", "y")], {"deq": np.uint64(5)}, r"shape \[\]"),
        ([quant("x", "q", 1.0), MM, dequant("m", "y")], {"w": np.ones((3, 2), np.float32)}, "'w' is not int8"),
        ([helper.make_node("AscendRequant", ["x"], ["y"], "re")], {}, "'re': AscendRequant"),
        *[
            (
                [
                    quant("x", "q", 1.0),
                    helper.make_node(kind, ["q", "w"], ["m"], "layer", group=group),
                    dequant("m", "y"),
                ],
                {"w": np.ones((3, 1, 2, 2), np.int8)},
                f"'layer' .* which {group} groups do not divide",
            )
            for kind in ("Conv", "ConvTranspose")
            for group in (2, 0, -1, 2**31)
        ],
    ],
)
def test_refusals_name_the_node(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], text: str) -> None:
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, WEIGHT | constants)
    with pytest.raises(UnsupportedModelError, match=text):
        DeploySession(content)


def test_a_shift_is_warned_about() -> None:
    nodes = [quant("x", "q", 1.0), MM, dequant("m", "y")]
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, WEIGHT | {"deq": packed([0.5, 0.25], shift=3)})
    session = DeploySession(content)
    assert "shift N" in session.warnings[0]
    (y,) = session.run(None, {"x": np.ones((1, 3), np.float32)})
    assert np.array_equal(y, WEIGHT["w"].sum(0, keepdims=True, dtype=np.int32) * np.array([0.5, 0.25], np.float32))


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        DeploySession(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="5 bytes"):
        DeploySession(b"hello")
    with pytest.raises(SettingError, match="Unknown chip 'npu'"):
        DeploySession(TIDY, device="npu")
    with pytest.raises(SettingError, match="providers"):
        DeploySession(TIDY, providers=["CUDAExecutionProvider"])
    with pytest.raises(SettingError, match="collect"):
        DeploySession(TIDY, collect="everything")
    session = DeploySession(TIDY)
    for call in (session.counts, lambda: session.run_layers({})):
        with pytest.raises(SettingError, match="collect="):
            call()
    content = model([helper.make_node("NoSuchOperator", ["x"], ["y"], "n")], {"x": (F32, None)}, {"y": F32})
    with pytest.raises(UnsupportedModelError, match="NoSuchOperator"):
        DeploySession(content)
