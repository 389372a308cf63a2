"""What the container holds beside the function that the model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from support.written_models import convert_and_compare, write_model

LAYER = "q{0} = QuantizeLinear(x, s, z) d{0} = DequantizeLinear(q{0}, s, z) {1} = MatMul(d{0}, wd)"


def test_a_layer_that_no_output_needs_is_in_no_output_and_not_in_the_ledger(tmp_path: Path) -> None:
    text = f"""g (float[n, 6] x) => (float[n, 4] y) {{
        wd = DequantizeLinear(w, s) {LAYER.format(1, "dead")} rest = Relu(dead) {LAYER.format(2, "y")}
    }}"""
    rng = np.random.default_rng(0)
    constants = {"s": np.float32(0.05), "z": np.int8(3), "w": rng.integers(-128, 128, (6, 4)).astype(np.int8)}
    path = write_model(tmp_path / "m.onnx", text, constants)
    report, deploy = convert_and_compare(path, {"x": rng.normal(size=(5, 6)).astype(np.float32)}, units=0)
    assert [e.source_output for e in report.layers] == ["y"]
    names = {n.name for n in deploy.graph.node}
    assert set(report.layers[0].deploy_nodes) == names


def test_no_node_is_called_as_atc_calls_a_constant(tmp_path: Path) -> None:
    """ATC names the nodes that it makes from initializers <tensor>_Initializer_<n>."""
    text = (
        f"g (float[n, 6] x) => (float[n, 4] y) {{ wd = DequantizeLinear(w, s) {LAYER.format(1, 'm')} y = Add(m, c) }}"
    )
    rng = np.random.default_rng(0)
    constants = {"s": np.float32(0.05), "z": np.int8(3), "w": rng.integers(-128, 128, (6, 4)).astype(np.int8)}
    path = write_model(tmp_path / "m.onnx", text, constants | {"c": np.ones((2, 1, 4), np.float32)})
    model = onnx.load(str(path))
    model.graph.node[-1].name = "c_Initializer_0"
    onnx.save(model, str(path))
    report, _ = convert_and_compare(path, {"x": rng.normal(size=(5, 6)).astype(np.float32)}, units=0)
    assert report.check is not None and report.check.passed
