"""Quantizers that become float operators: the same numbers as ONNX Runtime's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from amct_onnx import AMCT_SO, UnsupportedModelError, convert_qat_model
from amct_onnx.common.small_floats import SMALL_FLOATS
from support.qdq_builder import QdqBuilder

FLOAT8 = [n for n in SMALL_FLOATS if n.startswith("FLOAT8")]
BLOCK_SCALES = np.linspace(0.1, 1, 6).reshape(2, 3).astype(np.float32)


def converted_pair(folder: Path, shape: list[int | str], scale: np.ndarray, **attributes: int) -> tuple[Path, Path]:
    """The source of one Q/DQ pair, and its fake-quant model."""
    builder = QdqBuilder(opset=21)
    factor = builder.constant(scale)
    integers = builder.node("QuantizeLinear", [builder.input("x", shape), factor], **attributes)
    layout = {n: v for n, v in attributes.items() if n in ("axis", "block_size")}
    builder.output(builder.node("DequantizeLinear", [integers, factor], **layout), shape=shape)
    source = builder.save(folder)
    report = convert_qat_model(str(source), str(folder / "out" / "m"))
    assert [r.action for r in report.residuals] == ["float-chain"]
    return source, Path(report.fake_quant_model)


def run(model: Path, x: np.ndarray) -> np.ndarray:
    return np.asarray(ort.InferenceSession(str(model), AMCT_SO).run(None, {"x": x})[0])


def all_magnitudes() -> np.ndarray:
    """All float16 numbers, infinities and NaN, and random float32 numbers of all magnitudes."""
    half = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    bits = np.random.default_rng(0).integers(0, 2**32, 50_000, dtype=np.uint64)
    return np.concatenate([half, bits.astype(np.uint32).view(np.float32)])


@pytest.mark.parametrize("name", FLOAT8)
def test_float8_gives_the_bits_of_onnxruntime(name: str, tmp_path: Path) -> None:
    kind = int(TensorProto.DataType.Value(name))
    source, fake_quant = converted_pair(tmp_path, ["n"], np.float32(0.3).reshape(()), output_dtype=kind)
    x = all_magnitudes()
    np.testing.assert_array_equal(run(fake_quant, x), run(source, x))


@pytest.mark.parametrize("name", ["FLOAT8E4M3FN", "FLOAT8E5M2FNUZ", "FLOAT8E5M2"])
def test_float8_without_saturation_is_what_onnx_specifies(name: str, tmp_path: Path) -> None:
    """onnxruntime itself saturates some numbers just above the largest one, against the specification."""
    kind = int(TensorProto.DataType.Value(name))
    one = np.ones((), np.float32)
    _, fake_quant = converted_pair(tmp_path, ["n"], one, output_dtype=kind, saturate=0)
    x = all_magnitudes()
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = dataclasses.replace(SMALL_FLOATS[name], saturates=False).rounded(x)
    np.testing.assert_array_equal(run(fake_quant, x), wanted)


@pytest.mark.parametrize(("kind", "axis"), [("INT8", -1), ("UINT16", 1), ("FLOAT8E4M3FN", 1)])
def test_blocks_whose_last_one_is_short(kind: str, axis: int, tmp_path: Path) -> None:
    number = int(TensorProto.DataType.Value(kind))
    source, fake_quant = converted_pair(tmp_path, [2, 8], BLOCK_SCALES, axis=axis, block_size=3, output_dtype=number)
    x = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32) * 40
    np.testing.assert_array_equal(run(fake_quant, x), run(source, x))


def test_blocks_along_an_axis_of_unknown_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"per block along axis 1: .* of shape \['n', 'm'\]"):
        converted_pair(tmp_path, ["n", "m"], BLOCK_SCALES, axis=1, block_size=3, output_dtype=onnx.TensorProto.INT8)
