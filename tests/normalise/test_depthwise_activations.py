"""Depthwise convolutions whose activation has one scale per channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amct_onnx import DeploySession
from support.written_models import Array, convert_and_compare, operators, write_model

CHANNELS = 5
LAYERS = {
    "conv": ("Conv <group = 5, pads = [1, 1, 1, 1]>", (5, 1, 3, 3)),
    "two outputs a channel": ("Conv <group = 5>", (10, 1, 2, 3)),
    "one spatial axis": ("Conv <group = 5, pads = [1, 0]>", (5, 1, 3)),
    "three spatial axes": ("Conv <group = 5>", (5, 1, 2, 2, 2)),
    "transpose": ("ConvTranspose <group = 5, strides = [2, 2]>", (5, 1, 3, 3)),
    "transpose with two outputs a channel": ("ConvTranspose <group = 5>", (5, 2, 3, 3)),
}
WEIGHTS = {
    "integers": "wd = DequantizeLinear <axis = 0> (wi, sw)",
    "integers of one scale": "wd = DequantizeLinear (wi, s1)",
    "floats": "wq = QuantizeLinear <axis = 0> (wf, sw, zw) wd = DequantizeLinear <axis = 0> (wq, sw, zw)",
}


def constants(shape: tuple[int, ...], zero: int, kind: type, zeros: int = 1) -> dict[str, Array]:
    """Activation scales of unequal size, of which 1 / s is no float32, and a weight."""
    rng = np.random.default_rng(0)
    weight, rows = rng.integers(-127, 128, shape).astype(np.int8), shape[0]
    scale_w = rng.uniform(0.01, 0.03, rows).astype(np.float32)
    return {
        "s": rng.uniform(0.003, 0.7, CHANNELS).astype(np.float32),
        "z": (np.full(CHANNELS, zero) + np.arange(CHANNELS) % zeros).astype(kind),
        "wi": weight,
        "wf": weight * scale_w.reshape(-1, *[1] * (len(shape) - 1)),
        "sw": scale_w,
        "s1": np.float32(0.0213),
        "zw": np.zeros(rows, np.int8),
    }


def feeds(held: dict[str, Array], rank: int, beside: float = 0.45) -> dict[str, Array]:
    """Every integer of every channel, up to 0.45 of a step beside it: no tie."""
    low = 0 if held["z"].dtype == np.uint8 else -128
    steps = np.stack([np.random.default_rng(c).permutation(256) + low for c in range(CHANNELS)]).astype(np.float32)
    steps += np.random.default_rng(9).uniform(-beside, beside, steps.shape).astype(np.float32) - held["z"][:, None]
    sizes = {3: (256,), 4: (16, 16), 5: (4, 8, 8)}[rank]
    return {"x": (steps * held["s"][:, None]).reshape(1, CHANNELS, *sizes)}


def model(folder: Path, layer: str, weight: str, held: dict[str, Array], *, also: str = "", out: str = "y") -> Path:
    axes = ", ".join(f"n{a}" for a in range(held["wi"].ndim - 2))
    text = f"""g (float[n, {CHANNELS}, {axes}] x) => (float {out}) {{
        q = QuantizeLinear <axis = 1> (x, s, z) d = DequantizeLinear <axis = 1> (q, s, z)
        {weight} y = {layer} (d, wd) {also} }}"""
    return write_model(folder / "m.onnx", text, held)


CASES = [
    *((layer, "integers", 3, np.uint8) for layer in LAYERS),
    *(("conv", weight, 7, np.int8) for weight in WEIGHTS),
    *(("two outputs a channel", "integers", *end) for end in ((0, np.uint8), (255, np.uint8), (-128, np.int8))),
]


@pytest.mark.parametrize(("layer", "weight", "zero", "kind"), CASES)
def test_every_integer(layer: str, weight: str, zero: int, kind: type, tmp_path: Path) -> None:
    operator, shape = LAYERS[layer]
    held = constants(shape, zero, kind)
    path = model(tmp_path, operator, WEIGHTS[weight], held)
    report, deploy = convert_and_compare(path, feeds(held, len(shape)), units=0)
    entry, repeats = report.layers[0], shape[0] // CHANNELS if operator.startswith("Conv ") else 1
    own = held["s1"] if weight == "integers of one scale" else held["sw"]
    per_channel = own * np.repeat(held["s"], repeats)
    if shape[1] > 1:
        per_channel = np.repeat(per_channel, shape[1])  # outputs of one channel of a ConvTranspose
    assert (entry.verdict, entry.scale_d, entry.offset_d) == ("converted", 1, zero - 128 * (kind is np.uint8))
    assert np.array_equal(np.asarray(entry.scale_w, np.float32), per_channel.astype(np.float32))
    kinds = [k for k in operators(deploy) if k not in ("Squeeze", "Unsqueeze")]
    assert kinds == ["Mul", "AscendQuant", operator.split()[0], "AscendDequant"]


def test_integers_of_every_chip(tmp_path: Path) -> None:
    held = constants((5, 1, 1, 1), 3, np.uint8)
    path = model(tmp_path, "Conv <group = 5>", WEIGHTS["integers"], held)
    # on the grid, where float16's 11 bits leave 255 * 2^-11 < 0.2 of a step
    fed = feeds(held, 4, beside=0.0)
    report, _ = convert_and_compare(path, fed, units=0)
    expected = DeploySession(report.deploy_model).run(None, fed)[0]
    for device in ("a2", "310p", "310"):
        got = DeploySession(report.deploy_model, device=device).run(None, fed)[0]
        # AscendDequant rounds its factor and its result to float16; another integer would change 1 / 255 at least
        np.testing.assert_allclose(got, expected, rtol=2.0**-9, atol=0, err_msg=device)


def _conv() -> tuple[str, str]:
    return LAYERS["conv"][0], WEIGHTS["integers"]


def test_another_reader_keeps_the_quantizer_of_the_source(tmp_path: Path) -> None:
    held = constants((5, 1, 3, 3), 3, np.uint8)
    path = model(tmp_path, *_conv(), held, also="t = Add(y, d)", out="t")
    report, _ = convert_and_compare(path, feeds(held, 4), units=0)
    assert [e.verdict for e in report.layers] == ["converted"]
    assert [r.action for r in report.residuals] == ["float-chain"]


OTHERS = {
    "zero points that differ": ({"zeros": 2}, "Conv <group = 5>", (5, 1, 3, 3)),
    "not depthwise": ({}, "Conv", (3, 5, 3, 3)),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_cannot_move_stays_float(case: str, tmp_path: Path) -> None:
    more, operator, shape = OTHERS[case]
    held = constants(shape, 3, np.uint8, **more)
    report, _ = convert_and_compare(model(tmp_path, operator, WEIGHTS["integers"], held), feeds(held, 4), units=0)
    assert [e.reason for e in report.refused] == ["activation-per-channel"]


def test_two_layers_of_one_activation_share_the_quantizer(tmp_path: Path) -> None:
    held = constants((5, 1, 3, 3), 3, np.uint8)
    also = "u = Conv <group = 5, pads = [1, 1, 1, 1]> (d, wd) t = Add(y, u)"
    report, deploy = convert_and_compare(model(tmp_path, *_conv(), held, also=also, out="t"), feeds(held, 4), units=0)
    assert len(report.converted) == 2
    assert operators(deploy).count("AscendQuant") == operators(deploy).count("Mul") == 1
