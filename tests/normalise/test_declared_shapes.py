"""Declared shapes that the graph contradicts, where it leaves sizes open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from amct_onnx import convert_qat_model
from amct_onnx.normalise.declared_shapes import MAX_WARNINGS
from support.written_models import convert_and_compare, write_model

RNG = np.random.default_rng(0)
CONSTANTS = {
    "s": np.float32(0.05),
    "z": np.int8(0),
    "w": RNG.integers(-127, 128, (8, 8)).astype(np.int8),
    "sw": np.float32(0.0237),
    "shape": np.array([-1, 8, 8], np.int64),
}
TEXT = """g (float[n, 1, 8, 8] x) => (float[a, b, c] y) {
    r = Reshape(x, shape) q = QuantizeLinear(r, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear(w, sw)
    y = MatMul(d, wd)
}"""


@pytest.mark.parametrize("claim", [[8, 1], [2, 7, 8], [2, 8, 8, 1], []])
def test_false_shape_in_front_of_an_open_size(claim: list[int], tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", TEXT, CONSTANTS)
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, claim))
    onnx.save(model, path)
    feeds = {"x": RNG.normal(size=(3, 1, 8, 8)).astype(np.float32)}
    report, _ = convert_and_compare(path, feeds, units=0)
    assert len(report.converted) == 1
    assert any(w.startswith("Tensor 'r' is declared with shape") for w in report.warnings)


OPEN = """g (float[1, 4, h, v] x) => (float[a, b, c, e] y) {
    p = MaxPool <kernel_shape = [2, 2]> (x) q = QuantizeLinear(p, s, z) d = DequantizeLinear(q, s, z)
    kd = DequantizeLinear(k, sw) y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (d, kd)
}"""


@pytest.mark.parametrize("size", [(13, 11), (14, 12)])
def test_a_size_that_an_input_decides_is_no_ones_to_declare(size: tuple[int, int], tmp_path: Path) -> None:
    """The file was made for one size, then its input was opened: the padding of one parity is wrong for the other."""
    kernel = RNG.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
    path = write_model(tmp_path / "m.onnx", OPEN, {**CONSTANTS, "k": kernel})
    model = onnx.load(path)
    for name in ("p", "d"):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]))
    onnx.save(model, path)
    report, _ = convert_and_compare(path, {"x": RNG.normal(size=(1, 4, *size)).astype(np.float32)}, units=0)
    assert [e.reason for e in report.refused] == ["padding-unknown"]
    assert any("'d' is declared with shape [1, 4, 8, 8], and a graph input of free size" in w for w in report.warnings)


def test_false_claim_behind_a_fused_operator_blames_no_true_one(tmp_path: Path) -> None:
    """Inference knows the operator only when it is written out; until then no claim behind it is judged."""
    constants = {"s": np.float32(0.05), "z": np.int8(3), "v": np.arange(-16, 16, dtype=np.int8).reshape(8, 4)}
    text = """g (float[n, 8] x) => (float[n, 4] y) <float[5, 5] h> {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(v, s)
        h = com.microsoft.FusedMatMul(d, e) y = Relu(h)
    }"""
    path = write_model(tmp_path / "m.onnx", text, constants, imports='"com.microsoft" : 1')
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)}
    report, deploy = convert_and_compare(path, feeds, units=0)
    assert report.warnings == (
        "Tensor 'h' is declared with shape [5, 5], the graph makes [n, 4]. The declaration is ignored.",
    )
    assert [d.dim_param or d.dim_value for d in deploy.graph.output[0].type.tensor_type.shape.dim] == ["n", 4]


def test_claim_that_nothing_confirms_is_not_repeated(tmp_path: Path) -> None:
    """The values of an input decide the shape: what the file tells of it, and of what follows, may be false."""
    text = """g (float[2, 8] x, int64[3] n) => (float y) {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, s) m = MatMul(d, e)
        r = Reshape(m, n) y = Relu(r)
    }"""
    constants = {"s": np.float32(0.05), "z": np.int8(3), "w": np.arange(-16, 16, dtype=np.int8).reshape(8, 4)}
    path = write_model(tmp_path / "m.onnx", text, constants)
    model = onnx.load(path)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [7, 1, 2]))
    onnx.save(model, path)
    feeds = {"x": np.ones((2, 8), np.float32), "n": np.asarray([2, 2, 2], np.int64)}
    report, deploy = convert_and_compare(path, feeds, units=0)
    for made in (deploy, onnx.load(report.fake_quant_model)):
        told = {v.name: v for v in made.graph.value_info}
        assert "r" not in told or not told["r"].type.tensor_type.HasField("shape")


def test_outputs_of_the_graph_are_named_before_what_stands_inside(tmp_path: Path) -> None:
    """A user sees the interface; of many false declarations some are only counted."""
    inside = "abcdefghij"
    steps = " ".join(f"{made} = Neg({read})" for read, made in zip("p" + inside, inside, strict=False))
    claims = ", ".join(f"float[3, 8] {name}" for name in inside)
    text = f"""g (float[2, 8] x) => (float[3, 8] y) <{claims}> {{
        q = QuantizeLinear(x, s, z) p = DequantizeLinear(q, s, z) {steps} y = Relu({inside[-1]})
    }}"""
    report = convert_qat_model(write_model(tmp_path / "m.onnx", text, CONSTANTS), tmp_path / "out" / "m")
    shapes = "is declared with shape [3, 8], the graph makes [2, 8]. The declaration is ignored."
    named = [f"Tensor '{name}' {shapes}" for name in "y" + inside[: MAX_WARNINGS - 1]]
    more = f"{len(inside) + 1 - MAX_WARNINGS} more declarations contradict the graph and are ignored."
    assert report.warnings[: MAX_WARNINGS + 1] == (*named, f"{more} Infer the model's shapes again.")
