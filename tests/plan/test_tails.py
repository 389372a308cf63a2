"""Bias Adds and BatchNormalization behind a layer go into its int32 bias and its dequantization scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.written_models import Array, convert_and_compare, operators, write_model

SCALE_D = np.float32(0.05)


def conv_constants(rng: np.random.Generator, channels: int = 6) -> dict[str, Array]:
    return {
        "s": SCALE_D,
        "z": np.int8(7),
        "w": rng.integers(-127, 128, (channels, 3, 3, 3)).astype(np.int8),
        "sw": rng.uniform(0.001, 0.01, channels).astype(np.float32),
        "zw": np.zeros(channels, np.int8),
        "b": rng.normal(size=channels).astype(np.float32),
    }


HEAD = """
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    wd = DequantizeLinear <axis = 0> (w, sw, zw)
"""


def graph(tail: str) -> str:
    return f"g (float[n, 3, 9, 9] x) => (float[n, 6, m, l] y) {{ {HEAD} {tail} }}"


def batch_norm(rng: np.random.Generator, channels: int, *, negative: bool) -> dict[str, Array]:
    gamma = rng.uniform(0.3, 2, channels).astype(np.float32)
    if negative:
        gamma[::2] *= -1
        gamma[1] = 0
    return {
        "gamma": gamma,
        "beta": rng.normal(size=channels).astype(np.float32),
        "mean": rng.normal(size=channels).astype(np.float32),
        "var": rng.uniform(0.2, 3, channels).astype(np.float32),
    }


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize(
    "tail",
    [
        "c = Conv(d, wd, b) y = BatchNormalization(c, gamma, beta, mean, var)",
        "c = Conv(d, wd) y = BatchNormalization(c, gamma, beta, mean, var)",
        "c = Conv(d, wd, b) e = Div(c, f) y = BatchNormalization(e, gamma, beta, mean, var)",
        "c = Conv(d, wd, b) e = Add(k, c) h = Mul(e, f) y = BatchNormalization(h, gamma, beta, mean, var)",
        "c = Conv(d, wd) e = Sub(c, k) y = BatchNormalization(e, gamma, beta, mean, var)",
    ],
)
def test_batch_normalization_is_folded(tail: str, negative: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    norm = batch_norm(rng, 6, negative=negative)
    constants = conv_constants(rng) | norm
    constants["f"] = rng.uniform(0.5, 2, (6, 1, 1)).astype(np.float32)
    constants["k"] = rng.normal(size=(1, 6, 1, 1)).astype(np.float32)
    source = write_model(tmp_path / "m.onnx", graph(tail), constants)
    factor = np.abs(norm["gamma"] / np.sqrt(norm["var"] + 1e-5)) * 2
    units = 0.5 * float((SCALE_D * constants["sw"] * np.maximum(factor, 1)).max())
    x = rng.normal(size=(2, 3, 9, 9)).astype(np.float32)
    report, deploy = convert_and_compare(source, {"x": x}, units=units)
    assert operators(deploy) == ["AscendQuant", "Conv", "AscendDequant"]
    assert "BatchNormalization folded" in report.converted[0].detail


def test_batch_normalization_stays_float_where_the_negated_weight_leaves_int8(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    constants = conv_constants(rng) | batch_norm(rng, 6, negative=True)
    constants["w"][0, 0, 0, 0] = -128
    tail = "c = Conv(d, wd) y = BatchNormalization(c, gamma, beta, mean, var)"
    source = write_model(tmp_path / "m.onnx", graph(tail), constants)
    x = rng.normal(size=(1, 3, 9, 9)).astype(np.float32)
    _, deploy = convert_and_compare(source, {"x": x}, units=0)
    assert operators(deploy) == ["AscendQuant", "Conv", "AscendDequant", "BatchNormalization"]


def test_batch_normalization_stays_float_where_its_bias_leaves_int32(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    constants = conv_constants(rng) | batch_norm(rng, 6, negative=False)
    constants["gamma"][2] = 1e-9
    source = write_model(
        tmp_path / "m.onnx", graph("c = Conv(d, wd) y = BatchNormalization(c, gamma, beta, mean, var)"), constants
    )
    x = rng.normal(size=(1, 3, 9, 9)).astype(np.float32)
    _, deploy = convert_and_compare(source, {"x": x}, units=0)
    assert operators(deploy)[-1] == "BatchNormalization"


@pytest.mark.parametrize("tail", ["c = Conv(d, wd) y = Add(c, k)", "c = Conv(d, wd, b) y = Add(k, c)"])
def test_an_add_of_a_constant_per_channel_is_bias(tail: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    constants = conv_constants(rng) | {"k": rng.normal(size=(6, 1, 1)).astype(np.float32)}
    source = write_model(tmp_path / "m.onnx", graph(tail), constants)
    x = rng.normal(size=(1, 3, 9, 9)).astype(np.float32)
    units = 0.5 * float((SCALE_D * constants["sw"]).max())
    _, deploy = convert_and_compare(source, {"x": x}, units=units)
    assert operators(deploy) == ["AscendQuant", "Conv", "AscendDequant"]


@pytest.mark.parametrize(
    "tail",
    [
        "c = Conv(d, wd) y = Add(c, map)",
        "c = Conv(d, wd) y = Mul(c, k)",
        "c = Conv(d, wd) e = Add(c, k) h = Relu(c) y = Add(e, h)",
    ],
)
def test_what_is_no_bias_stays_behind_the_dequantization(tail: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    constants = conv_constants(rng)
    constants |= {"k": rng.normal(size=(6, 1, 1)).astype(np.float32), "map": rng.normal(size=(1, 1, 7, 7)).astype("f4")}
    source = write_model(tmp_path / "m.onnx", graph(tail), constants)
    x = rng.normal(size=(1, 3, 9, 9)).astype(np.float32)
    report, deploy = convert_and_compare(source, {"x": x}, units=0)
    assert operators(deploy)[:3] == ["AscendQuant", "Conv", "AscendDequant"]
    assert len(operators(deploy)) > 3 and len(report.converted) == 1


def test_batch_normalization_behind_transposed_and_dense_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    norm = batch_norm(rng, 8, negative=True)
    constants = norm | {
        "s": SCALE_D,
        "z": np.int8(-3),
        "w": rng.integers(-127, 128, (4, 4, 2, 2)).astype(np.int8),
        "sw": rng.uniform(0.001, 0.01, 4).astype(np.float32),
        "zw": np.zeros(4, np.int8),
        "v": rng.integers(-127, 128, (5, 8)).astype(np.int8),
        "sv": rng.uniform(0.001, 0.01, 8).astype(np.float32),
        "zv": np.zeros(8, np.int8),
    }
    text = """g (float[n, 4, 5, 5] x, float[n, 5] u) => (float[n, 8, m, l] y, float[n, 8] t) {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear <axis = 1> (w, sw, zw)
        c = ConvTranspose <group = 2, strides = [2, 2]> (d, wd)
        y = BatchNormalization(c, gamma, beta, mean, var)
        p = QuantizeLinear(u, s, z)
        e = DequantizeLinear(p, s, z)
        vd = DequantizeLinear <axis = 1> (v, sv, zv)
        r = MatMul(e, vd)
        t = BatchNormalization(r, gamma, beta, mean, var)
    }"""
    source = write_model(tmp_path / "m.onnx", text, constants)
    feeds = {"x": rng.normal(size=(2, 4, 5, 5)).astype(np.float32), "u": rng.normal(size=(3, 5)).astype(np.float32)}
    units = 0.5 * float(SCALE_D * 0.01 * np.abs(norm["gamma"] / np.sqrt(norm["var"])).max())
    report, deploy = convert_and_compare(source, feeds, units=units)
    assert len(report.converted) == 2 and "BatchNormalization" not in operators(deploy)
