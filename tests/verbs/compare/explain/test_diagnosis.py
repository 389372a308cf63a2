"""What a divergence that is no fault is called."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

import amct_onnx
from amct_onnx.verbs.compare.causes import NOISE_CAUSES
from amct_onnx.verbs.compare.explain.diagnosis import ADVICE
from amct_onnx.verbs.compare.report import Divergence

EXPLAIN = Path(__file__).parents[4] / "src" / "amct_onnx" / "verbs" / "compare" / "explain"


def test_the_cause_tells_faults_from_noise() -> None:
    assert set(ADVICE) == NOISE_CAUSES
    assert not any(Divergence("m", "l", 0, cause, "", "", 0.0, 0.0).is_fault for cause in NOISE_CAUSES)
    faults = set(re.findall(r'"([a-z-]+-fault)"', (EXPLAIN / "faults.py").read_text(encoding="utf-8")))
    assert len(faults) == 5 and all(Divergence("m", "l", 0, c, "", "", 0.0, 0.0).is_fault for c in faults)


def test_layer_without_a_next_quantizer_is_told_in_its_own_unit() -> None:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        unquantized (float[N,16] x) => (float[N,4] y)
            <float scale = {0.031}, int8 zero = {0}, float[4] b = {0.1, 0.2, 0.3, 0.4}>
        {
            q = QuantizeLinear(x, scale, zero)
            d = DequantizeLinear(q, scale, zero)
            v = DequantizeLinear(w, scale, zero)
            y = Gemm(d, v, b)
        }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(rng.integers(-127, 127, (16, 4), dtype=np.int8), "w"))
    data = {"x": rng.standard_normal((64, 16)).astype(np.float32)}
    onnx.save(model, "source.onnx")
    amct_onnx.convert_qat_model("source.onnx", "m")
    (told,) = (d for d in amct_onnx.compare("source.onnx", "m", data).divergences if d.model == "deploy@a2")
    assert "(no quantizer follows), which quantization explains" in told.text
    assert "next quantizer" not in told.text and "LSB" not in told.text
    (device,) = re.findall(
        r"in the unit of the tensor, where no quantizer follows: .*device-arithmetic ([\d.]+)", told.text
    )
    assert float(device) < 1  # of outputs of some tens; the accumulator's unit, in which it was 110, is 0.001
