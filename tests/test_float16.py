"""float16 models: AscendQuant on float16, AscendDequant with dtype 1, and a fake-quant model that loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_onnx import convert_qat_model
from deploy_evaluator import attributes, evaluate, run
from written_models import operators, write_model

FORMS = {
    "casts around Q and DQ": (
        17,
        "u = Cast <to = 1> (x) q = QuantizeLinear(u, s, z) e = DequantizeLinear(q, s, z) d = Cast <to = 10> (e)",
        "v = DequantizeLinear(w, s) wd = Cast <to = 10> (v)",
    ),
    "float16 scales": (
        19,
        "q = QuantizeLinear(x, h, z) d = DequantizeLinear(q, h, z)",
        "wd = DequantizeLinear(w, h)",
    ),
}


@pytest.mark.parametrize(("opset", "quantizer", "weight"), FORMS.values(), ids=FORMS.keys())
def test_float16_model(opset: int, quantizer: str, weight: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scale = np.float16(0.0625)
    text = f"g (float16[n, 6] x) => (float16[n, 4] y) {{ {quantizer} {weight} m = MatMul(d, wd) y = Add(m, b) }}"
    constants = {
        "s": np.float32(scale),
        "h": scale,
        "z": np.int8(-5),
        "w": rng.integers(-127, 128, (6, 4)).astype(np.int8),
        "b": rng.integers(-99, 99, 4).astype(np.float16) * scale * scale,
    }
    used = {k: v for k, v in constants.items() if f"{k})" in text or f"{k}," in text}
    path = write_model(tmp_path / "m.onnx", text, used, opset=opset)
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert len(report.converted) == 1
    deploy = onnx.load(report.deploy_model)
    assert operators(deploy) == ["AscendQuant", "MatMul", "Add", "AscendDequant"]
    assert attributes(deploy.graph.node[-1])["dtype"] == 1
    feeds = {"x": rng.normal(size=(7, 6)).astype(np.float16)}
    ours, exact, source = run(report.fake_quant_model, feeds), evaluate(report.deploy_model, feeds), run(path, feeds)
    assert ours["y"].dtype == np.float16
    assert np.array_equal(ours["y"], exact["y"])
    # every product is a multiple of 2^-8, so that only the last cast to float16 rounds, once in each
    np.testing.assert_array_equal(ours["y"], source["y"])
