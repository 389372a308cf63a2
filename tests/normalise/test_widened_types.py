"""Tensors of int4 and float8 at the model's ends: the outputs take and give the same numbers in wider types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import amct_onnx
from amct_onnx import convert_qat_model
from support.corner_models import CONSTANTS, E4M3, FEEDS, FIRST, INT4
from support.deploy_evaluator import run
from support.older_libraries import needs_opset

WITH_TABLES = {**CONSTANTS, "z4": np.ones((), ir.DataType.INT4.numpy())}
SCALE = 0.05


def outputs_of(text: str, folder: Path, feeds: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int, int]:
    """Of the fake-quant model, whose bits are the deploy model's; layers in int8, and all."""
    constants = {n: a for n, a in WITH_TABLES.items() if n in text}
    needs_opset(23)
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]>\n{text}')
    model.graph.initializer.extend(
        ir.serde.serialize_tensor(ir.tensor(np.asarray(a), name=n)) for n, a in constants.items()
    )
    onnx.save(model, folder / "m.onnx")
    report = convert_qat_model(folder / "m.onnx", folder / "out" / "m")
    fake = run(report.fake_quant_model, feeds)
    with amct_onnx.DeploySession(report.deploy_model) as session:
        for one, other in zip(fake.values(), session.run(None, feeds), strict=True):
            assert one.dtype == other.dtype and np.array_equal(one, other)
    return fake, len(report.converted), len(report.layers)


def test_an_output_of_int4_gives_its_integers_as_int8(tmp_path: Path) -> None:
    text = (
        f"g (float[2, 8] x) => (int4[n, 8] o, float[n, 8] y) "
        f"{{ {FIRST} o = QuantizeLinear <output_dtype = {INT4}> (y, s) }}"
    )
    fake, *_ = outputs_of(text, tmp_path, FEEDS)
    assert fake["o"].dtype == np.int8
    np.testing.assert_array_equal(fake["o"], np.clip(np.rint(fake["y"] / np.float32(SCALE)), -8, 7))


def test_an_output_of_float8_gives_its_numbers_as_floats(tmp_path: Path) -> None:
    text = (
        f"g (float[2, 8] x) => (float8e4m3fn[n, 8] o, float[n, 8] y) "
        f"{{ {FIRST} o = QuantizeLinear <output_dtype = {E4M3}> (y, s) }}"
    )
    fake, *_ = outputs_of(text, tmp_path, FEEDS)
    limit = np.float32(448)
    expected = np.clip(fake["y"] / np.float32(SCALE), -limit, limit).astype(ir.DataType.FLOAT8E4M3FN.numpy())
    np.testing.assert_array_equal(fake["o"], expected.astype(np.float32))


@pytest.mark.parametrize("kind", ["int4", "uint4", "float8e4m3fn"])
def test_an_input_of_few_bits_takes_its_numbers_in_a_wider_type(kind: str, tmp_path: Path) -> None:
    text = (
        f"g (float[2, 8] x, {kind}[2, 8] j) => (float[n, 8] o, float[n, 8] e) "
        f"{{ {FIRST} e = DequantizeLinear(j, s) p = MatMul(e, wd) o = Add(y, p) }}"
    )
    numbers = np.arange(16).reshape(2, 8) - (8 if kind == "int4" else 0)
    wide = {"int4": np.int8, "uint4": np.uint8}.get(kind, np.float32)
    fake, int8, layers = outputs_of(text, tmp_path, {**FEEDS, "j": numbers.astype(wide)})
    np.testing.assert_array_equal(fake["e"], numbers.astype(np.float32) * np.float32(SCALE))
    assert (int8, layers) == (2 if wide != np.float32 else 1, 2)


@pytest.mark.parametrize("table", ["int4s", "float8s"])
def test_a_gather_from_a_table_of_few_bits(table: str, tmp_path: Path) -> None:
    zero = ", z4" if table == "int4s" else ""
    text = (
        f"g (float[2, 8] x, int64[2] rows) => (float[n, 8] o, float[n, 8] e) "
        f"{{ {FIRST} t = Gather({table}, rows) e = DequantizeLinear(t, s{zero}) p = MatMul(e, wd) o = Add(y, p) }}"
    )
    fake, int8, layers = outputs_of(text, tmp_path, {**FEEDS, "rows": np.array([6, 1])})
    taken = WITH_TABLES[table][[6, 1]].astype(np.float32) - (1 if zero else 0)
    np.testing.assert_array_equal(fake["e"], taken * np.float32(SCALE))
    assert (int8, layers) == (2 if zero else 1, 2)


@pytest.mark.parametrize("nodes", ["", "o = Identity(int4s)", "o = Transpose(float8s)"])
def test_a_constant_output_of_few_bits_is_wider(nodes: str, tmp_path: Path) -> None:
    """One that is an initializer itself, too."""
    table = "float8s" if "float8s" in nodes else "int4s"
    kind, name = ("float8e4m3fn" if table == "float8s" else "int4"), ("o" if nodes else table)
    text = f"g (float[2, 8] x) => ({kind}[8, 8] {name}, float[n, 8] y) {{ {FIRST} {nodes} }}"
    fake, *_ = outputs_of(text, tmp_path, FEEDS)
    numbers = WITH_TABLES[table].astype(np.float32)
    np.testing.assert_array_equal(fake[name], numbers.T if table == "float8s" else numbers)


def test_a_cast_like_float8_is_a_cast(tmp_path: Path) -> None:
    nodes = "i = CastLike(y, float8s) o = CastLike(i, s)"
    text = f"g (float[2, 8] x) => (float[n, 8] o, float[n, 8] y) {{ {FIRST} {nodes} }}"
    fake, *_ = outputs_of(text, tmp_path, FEEDS)
    rounded = np.clip(fake["y"], -448, 448).astype(ir.DataType.FLOAT8E4M3FN.numpy())
    np.testing.assert_array_equal(fake["o"], rounded.astype(np.float32))
