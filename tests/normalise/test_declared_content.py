"""What is declared of initializers and of a Loop's turns, where the contents or the outer graph say otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support.written_models import convert_and_compare, write_model

RNG = np.random.default_rng(0)
CONSTANTS = {
    "s": np.float32(0.05),
    "z": np.int8(0),
    "sw": np.float32(0.0237),
    "k": RNG.integers(-127, 128, (3, 3, 3, 3)).astype(np.int8),
    "flat": np.array([1, -1], np.int64),
}
IMAGE = {"x": RNG.normal(size=(1, 3, 9, 9)).astype(np.float32)}
CONV = """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) kd = DequantizeLinear(k, sw)
    c = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (d, kd)"""


def declared(path: Path, name: str, kind: int, shape: list[int]) -> Path:
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info(name, kind, shape))
    onnx.save(model, path)
    return path


FALSE = {
    "shape of a weight": ("k", TensorProto.INT8, [8, 3, 3, 3]),
    "type of a weight": ("k", TensorProto.FLOAT, [3, 3, 3, 3]),
    "shape of a scale": ("s", TensorProto.FLOAT, [7]),
    "type of a zero point": ("z", TensorProto.UINT8, []),
    "type of a shape": ("flat", TensorProto.FLOAT16, [2]),
}


@pytest.mark.parametrize(("name", "kind", "shape"), FALSE.values(), ids=FALSE)
def test_an_initializer_is_what_it_holds(name: str, kind: int, shape: list[int], tmp_path: Path) -> None:
    """A false claim ended inference: the padding became unknown, or the fake-quant model did not load."""
    path = write_model(
        tmp_path / "m.onnx", f"g (float[1, 3, 9, 9] x) => (float y) {{ {CONV} y = Reshape(c, flat) }}", CONSTANTS
    )
    report, _ = convert_and_compare(declared(path, name, kind, shape), IMAGE, units=0)
    assert len(report.converted) == 1
    assert [w.split(" is declared")[0] for w in report.warnings] == [f"Tensor '{name}'"]


def test_an_input_without_a_shape_leaves_every_size_free(tmp_path: Path) -> None:
    text = f"g (float[1, 3, 9, 9] x) => (float y) {{ {CONV} y = Identity(c) }}"
    path = declared(write_model(tmp_path / "m.onnx", text, CONSTANTS), "d", TensorProto.FLOAT, [1, 3, 8, 8])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    report, _ = convert_and_compare(path, IMAGE, units=0)
    assert [e.reason for e in report.refused] == ["padding-unknown"]
    assert any("'d' is declared with shape [1, 3, 8, 8], and a graph input of free size" in w for w in report.warnings)


@pytest.mark.parametrize(
    ("told", "stride", "reasons"), [(8, 2, ["padding-unknown"]), (9, 2, ["padding-unknown"]), (9, 1, [])]
)
def test_what_a_loop_carries_has_the_size_of_every_turn(
    told: int, stride: int, reasons: list[str], tmp_path: Path
) -> None:
    """ONNX Runtime takes no notice of what a body declares; a size may also change from turn to turn."""
    text = f"""g (float[1, 3, 9, 9] x, int64 turns) => (float[1, 3, 4, 4] y) {{
        kd = DequantizeLinear(k, sw)
        y = Loop (turns, , x) <body = turn (int64 i, bool on, float[1, 3, {told}, {told}] v)
            => (bool go, float[1, 3, 4, 4] r) <float[1, 3, 8, 8] d> {{
            go = Identity(on) q = QuantizeLinear(v, s, z) d = DequantizeLinear(q, s, z)
            r = Conv <auto_pad = "SAME_UPPER", strides = [{stride}, {stride}]> (d, kd)
        }}>
    }}"""
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS)
    report, deploy = convert_and_compare(path, IMAGE | {"turns": np.array(2)}, units=0)
    assert [e.reason for e in report.refused] == reasons
    assert any("'d' is declared with shape [1, 3, 8, 8]" in w for w in report.warnings)
    sizes = [d.dim_value for d in deploy.graph.output[0].type.tensor_type.shape.dim]
    assert sizes in ([], [1, 3, 0, 0], [1, 3, 9, 9])
