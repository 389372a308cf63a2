"""What a layer's own error may be: also in float16, where a result may be small beside its products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx import compare, convert_qat_model
from support.older_libraries import needs_float16_rounding

INPUTS, CHANNELS = 256, 64


def write_cancelling(path: Path) -> np.ndarray:
    """A float16 Gemm whose bias takes away almost all of each sum, and the one sample that does it."""
    rng = np.random.default_rng(3)
    sample = rng.uniform(0, 4, INPUTS).astype(np.float16)
    scales = {"s": np.float16(0.0317), "sw": np.float16(0.0121)}
    weight = rng.integers(-127, 128, (INPUTS, CHANNELS)).astype(np.int8)
    rounded = np.clip(np.rint(sample / scales["s"]), -128, 127) * np.float64(scales["s"])
    bias = (-(rounded @ (weight * np.float64(scales["sw"]))) + 0.01).astype(np.float16)
    tensors = {**scales, "z": np.int8(0), "w": weight, "b": bias}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "d"),
        helper.make_node("DequantizeLinear", ["w", "sw", "z"], ["v"], "v"),
        helper.make_node("Gemm", ["d", "v", "b"], ["y"], "gemm"),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT16, ["n", k]) for n, k in (("x", INPUTS), ("y", CHANNELS))
    ]
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return sample


@pytest.mark.parametrize("steps", (0, 400))
def test_a_float16_sum_that_cancels_is_no_fault_and_a_wrong_bias_is(steps: int, tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    sample = write_cancelling(source)
    needs_float16_rounding(source)
    report = convert_qat_model(source, tmp_path / "m")
    for path in (report.deploy_model, report.fake_quant_model) if steps else ():
        model = onnx.load(path)
        (bias,) = (t for t in model.graph.initializer if t.name == "b")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.int32(steps), "b"))
        onnx.save(model, path)
    found = compare(source, tmp_path / "m", {"x": np.tile(sample, (4, 1))})
    assert (found.verdict.level == "diverges") is (steps > 0), found.verdict
    assert steps == 0 or "'gemm'" in found.verdict.headline, found.verdict
