"""Pairs that feed no int8 layer go on request; what stood for a Relu or a Clip stays, and compare knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_onnx as amct
from amct_onnx.cli import main
from support.deploy_evaluator import Evaluator, run
from support.written_models import Array, operators, write_model

RNG = np.random.default_rng(3)
CONSTANTS: dict[str, Array] = {
    "s": np.float32(2.0**-4),
    "z": np.int8(0),
    "u": np.uint8(0),
    "m": np.uint8(128),
    "low": np.uint8(100),
    "high": np.uint8(200),
    "w": RNG.integers(-127, 128, (8, 8, 1, 1)).astype(np.int8),
    "sw": np.float32(2.0**-7),
}
LAYER = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, sw) c = Conv(d, e) "
FORMS = {
    "calibrated range": ("p = QuantizeLinear(c, s, m) r = DequantizeLinear(p, s, m)", [], (-8.0, 7.9375)),
    "a Relu is gone": ("p = QuantizeLinear(c, s, u) r = DequantizeLinear(p, s, u)", ["Clip"], (0.0, 15.9375)),
    "the Relu is there": (
        "o = Relu(c) p = QuantizeLinear(o, s, u) r = DequantizeLinear(p, s, u)",
        ["Relu"],
        (0.0, 15.9375),
    ),
    "a Clip of integers": (
        "p = QuantizeLinear(c, s, m) o = Clip(p, low, high) r = DequantizeLinear(o, s, m)",
        ["Clip"],
        (-1.75, 4.5),
    ),
}


def converted(body: str, folder: Path) -> tuple[Path, amct.ConversionReport]:
    text = f"g (float[n, 8, 6, 6] x) => (float[n, 8, 6, 6] y) {{ {LAYER} {body} y = Sigmoid(r) }}"
    path = write_model(folder / "m.onnx", text, CONSTANTS)
    return path, amct.convert_qat_model(path, folder / "out" / "m", residual_quantizers="drop")


@pytest.mark.parametrize(("body", "left", "bounds"), FORMS.values(), ids=FORMS.keys())
def test_saturation_that_stands_for_an_operator_stays(
    body: str, left: list[str], bounds: tuple[float, float], tmp_path: Path
) -> None:
    path, report = converted(body, tmp_path)
    (entry,) = report.residuals
    assert (entry.action, entry.scale, (entry.low, entry.high)) == ("dropped", 2.0**-4, bounds)
    found = operators(onnx.load(report.deploy_model))
    assert found == ["AscendQuant", "Conv", "AscendDequant", *left, "Sigmoid"]
    feeds = {"x": RNG.normal(size=(2, 8, 6, 6)).astype(np.float32) * 3}
    fake = run(report.fake_quant_model, feeds)["y"]
    assert np.array_equal(Evaluator(report.deploy_model).run(feeds)["y"], fake)
    if left:  # a value changes by half a step at most, and Sigmoid by a quarter of that
        expected = run(path, feeds, qdq_source=True)["y"]
        assert 0 < np.abs(fake - expected).max() <= 2.0**-4 / 2 / 4 + 2.0**-20


def test_pair_that_a_layer_shares_stays(tmp_path: Path) -> None:
    body = "p = QuantizeLinear(c, s, z) h = DequantizeLinear(p, s, z) f = DequantizeLinear(w, sw) l = Conv(h, f) "
    body += "r = Add(h, l)"
    _, report = converted(body, tmp_path)
    (entry,) = report.residuals
    assert (entry.action, entry.detail) == (
        "anti-quant",
        "shared with an int8 layer: Add reads what it rounds, behind an int8 layer. To remove it, let Add get the "
        "numbers in front of the quantizer, which the int8 layer needs",
    )


@pytest.mark.parametrize("body", [f[0] for f in FORMS.values()], ids=FORMS.keys())
def test_compare_calls_the_choice_no_fault(body: str, tmp_path: Path) -> None:
    path, _ = converted(body, tmp_path)
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(4, 8, 6, 6)).astype(np.float32))
    report = amct.compare(path, tmp_path / "out" / "m", tmp_path / "x.npz")
    assert not [d for d in report.divergences if d.is_fault]


def test_option_of_the_command(tmp_path: Path) -> None:
    path, _ = converted(FORMS["calibrated range"][0], tmp_path)
    arguments = ["convert", "--model", str(path), "--save_path", str(tmp_path / "c" / "m")]
    for choice, pairs in (("keep", 1), ("drop", 0)):
        assert main([*arguments, "--residual_quantizers", choice]) == 0
        deploy = onnx.load(str(tmp_path / "c" / "m_deploy_model.onnx"))
        assert operators(deploy).count("AscendAntiQuant") == pairs
