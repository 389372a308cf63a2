"""Layers and quantizers in the bodies of If and Loop are converted where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from support.deploy_evaluator import op_types
from support.written_models import Array, convert_and_compare, write_model

LAYER = """
    q{0} = QuantizeLinear({1}, s, z) d{0} = DequantizeLinear(q{0}, s, z)
    wd{0} = DequantizeLinear(w, sw) y{0} = MatMul(d{0}, wd{0})
"""


def constants() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (6, 6)).astype(np.int8)
    return {"s": np.float32(0.05), "z": np.int8(3), "w": weight, "sw": np.float32(0.01)}


def in_bodies(model: onnx.ModelProto) -> set[str]:
    return {
        op
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.HasField("g")
        for op in op_types(attribute.g.node)
    }


@pytest.mark.parametrize("taken", [False, True])
def test_if_with_equal_names_in_both_branches(taken: bool, tmp_path: Path) -> None:
    body = LAYER.format("b", "x")
    text = f"""g (bool c, float[n, 6] x) => (float[n, 6] y) {{
        {LAYER.format("a", "x")}
        r = If (c) <
            then_branch = t () => (float[n, 6] yb) {{ {body} }},
            else_branch = e () => (float[n, 6] z1) {{ {body.replace("yb", "m")} z1 = Relu(m) }}
        >
        y = Add(r, ya)
    }}"""
    path = write_model(tmp_path / "m.onnx", text, constants())
    feeds = {"c": np.asarray(taken), "x": np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)}
    report, deploy = convert_and_compare(path, feeds, units=0)
    assert len(report.converted) == 3
    assert in_bodies(deploy) >= {"AscendQuant", "AscendDequant"}


def test_loop_body(tmp_path: Path) -> None:
    text = f"""g (float[n, 6] x) => (float[n, 6] y) {{
        y = Loop (trips, , x) <
            body = b (int64 i, bool go, float[n, 6] v) => (bool on, float[n, 6] out) {{
                on = Identity(go) {LAYER.format("a", "v")} out = Tanh(ya)
            }}
        >
    }}"""
    path = write_model(tmp_path / "m.onnx", text, constants() | {"trips": np.asarray(3, np.int64)})
    feeds = {"x": np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)}
    report, deploy = convert_and_compare(path, feeds, units=0)
    assert len(report.converted) == 1
    assert in_bodies(deploy) >= {"AscendQuant", "AscendDequant"}


def test_integers_of_each_channel_that_leave_a_body(tmp_path: Path) -> None:
    branch = "() => (int8[n, 6] q{0}) {{ q{0} = QuantizeLinear <axis = 1> (x, many, zeros) }}"
    text = f"""g (bool c, float[n, 6] x) => (float[n, 6] y) {{
        q = If (c) < then_branch = t {branch.format(1)}, else_branch = e {branch.format(2)} >
        y = DequantizeLinear(q, s, z)
    }}"""
    channels = {"many": np.arange(1, 7, dtype=np.float32), "zeros": np.zeros(6, np.int8)}
    path = write_model(tmp_path / "m.onnx", text, constants() | channels)
    feeds = {"c": np.asarray(True), "x": np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32) * 9}
    report, deploy = convert_and_compare(path, feeds, units=0)
    assert len(report.warnings) == 2 and in_bodies(deploy) >= {"Round", "Cast"}
