"""Models written as text with arrays as initializers, and the one comparison that every conversion must pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from amct_onnx import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.deploy_evaluator import Evaluator, run
from support.older_libraries import needs_kernels
from support.tensor_protos import tensor_proto

Array = np.ndarray


def write_model(
    path: Path,
    graph: str,
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    imports: str = "",
    ir_version: int = 8,
) -> Path:
    """Parse ``graph`` (the text form of ONNX), add the constants as initializers, check and save."""
    domains = f'"" : {opset}' + (f", {imports}" if imports else "")
    model = onnx.parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{domains}]>\n{graph}")
    model.graph.initializer.extend(tensor_proto(v, n) for n, v in (constants or {}).items())
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def convert_and_compare(
    source: Path, feeds: Mapping[str, Array], *, units: float, grid_weights: bool = True
) -> tuple[ConversionReport, onnx.ModelProto]:
    """Convert; fake-quant must equal deploy bit for bit, and the source to within ``units`` everywhere.

    ``units`` is the sum of what the conversion may change: half a unit of deq_scale for each bias it rounds.
    """
    report = convert_qat_model(source, source.parent / "out" / "m", grid_weights=grid_weights)
    evaluator = Evaluator(report.deploy_model)
    deploy, fake = evaluator.run(feeds), run(report.fake_quant_model, dict(feeds))
    assert list(deploy) == list(fake)
    assert all(np.array_equal(deploy[n], v) for n, v in fake.items())
    assert evaluator.stats.exact_in_float32
    needs_kernels(onnx.load(source))
    expected = run(str(source), dict(feeds), qdq_source=True)
    assert list(fake) == list(expected)
    for name, value in fake.items():
        assert (value.dtype, value.shape) == (expected[name].dtype, expected[name].shape)
        # 2^-20 of the largest value: float32 rounds the same sums in another order
        slack = units + float(np.abs(expected[name]).max()) * 2.0**-20
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=slack, err_msg=name)
    return report, onnx.load(report.deploy_model)


def operators(model: onnx.ModelProto) -> list[str]:
    """Operator types of the main graph, in order."""
    return [n.op_type for n in model.graph.node]
