"""Sizes that follow from the graph although one axis is free, and sizes that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from amct_onnx import AMCT_SO, DeploySession, convert_qat_model
from amct_onnx.plan.open_sizes import OpenSizes
from support.written_models import Array, convert_and_compare, write_model

NETWORKS = Path(__file__).parents[1] / "data" / "networks"
HALVES = """s = Shape (x) c = Gather (s, one) f = Div (c, two) e = Unsqueeze (f, zero)
    h = Slice (x, zero, e, ones) r = Relu (h) y = Relu (r)"""
CONSTANTS = """one = Constant <value_int = 1> () two = Constant <value_int = 2> () zero = Constant <value_ints = [0]> ()
    ones = Constant <value_ints = [1]> () """


def shapes(
    inputs: str, body: str, outputs: str = "float[a, b] y", **declared: list[Any]
) -> dict[str, list[Any] | None]:
    """The shapes that are looked up, of all but constants; ``declared`` are those of the tensors."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {CONSTANTS} {body} }}'
    model = ir.from_proto(onnx.parser.parse_model(text))
    for value in (v for n in model.graph for v in n.outputs):
        if not value.is_graph_output():
            value.shape = ir.Shape(declared[value.name or ""]) if value.name in declared else None
    sizes = OpenSizes(model)
    found = ((v.name or "", sizes.shape(v)) for n in model.graph for v in n.outputs if n.op_type != "Constant")
    return {k: None if s is None else [d if isinstance(d, int) else d.value for d in s] for k, s in found}


def test_a_half_of_a_fixed_axis_beside_a_free_one() -> None:
    found = shapes("float[n, 6] x", HALVES)
    assert found == {"s": [2], "c": [], "f": [], "e": [1]} | dict.fromkeys("hry", ["n", 3])


def test_a_half_of_a_free_axis_stays_open() -> None:
    assert shapes("float[6, n] x", HALVES)["h"] == [6, None]


def test_names_that_an_exporter_or_inference_made_up() -> None:
    found = shapes("float[n, 6] x", HALVES, h=["Slice_h_dim_0", "unk__1"], r=["n", "unk__1"])
    assert found["h"] == found["r"] == ["n", 3]


def test_what_is_declared_stays() -> None:
    """A size that contradicts the graph is for another rule, which tells of it."""
    assert shapes("float[n, 6] x", HALVES, h=[4, None])["h"] == [4, 3]


def test_equal_lengths_are_no_proof_of_a_name() -> None:
    """The sum of two free axes is neither; a product that is fixed is."""
    body = "k = Concat <axis = 0> (x, z) h = Relu (k) r = Transpose (h) y = Relu (r)"
    assert shapes("float[n, 6] x, float[m, 6] z", body)["r"] == [6, None]


def test_more_axes_than_lengths() -> None:
    """The sixth axis has the length of the first: neither name is taken."""
    inputs = ", ".join(f"float[{c}, {c}] x{c}" for c in "abcdef")
    found = shapes(inputs, "r = Relu (xa) q = Relu (xb) y = Add (r, q)")
    assert found["r"] == [None, None] and found["q"] == ["b", "b"]


def test_all_sizes_known_and_one_computed() -> None:
    assert shapes("float[2, 6] x", HALVES)["h"] == [2, 3]


@pytest.mark.parametrize("images", [1, 2])
def test_quantizers_are_placed_and_counted_as_with_a_fixed_number_of_images(images: int, tmp_path: Path) -> None:
    """Halves and windows, whose sizes an exporter computes in the graph."""
    free = convert_qat_model(NETWORKS / "windows.onnx", tmp_path / "free").cost
    proto = onnx.load(NETWORKS / "windows.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = images
    del proto.graph.value_info[:]
    onnx.save(proto, tmp_path / "fixed.onnx")
    fixed = convert_qat_model(tmp_path / "fixed.onnx", tmp_path / "fixed").cost
    assert free is not None and fixed is not None and free.free_axes == ("n",) and not fixed.free_axes
    assert (free.unknown, free.float_operators) == (fixed.unknown, fixed.float_operators) == (0, free.float_operators)
    assert (images * free.macs, images * free.int8_macs) == (fixed.macs, fixed.int8_macs)
    for one, other in ((free.source, fixed.source), (free.quant, fixed.quant), (free.anti_quant, fixed.anti_quant)):
        assert one.nodes == other.nodes and images * one.elements == other.elements


def test_a_model_without_open_sizes_is_not_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor one in which nothing moves the elements of a quantizer: a trial takes as long as some rules."""
    monkeypatch.setattr(OpenSizes, "_tried", property(lambda _: pytest.fail("tried")))
    convert_qat_model(NETWORKS / "dense.onnx", tmp_path / "m")
    chain = """g (float[n, 4] x) => (float[n, 4] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        t = Sin(d) p = QuantizeLinear(t, s, z) r = DequantizeLinear(p, s, z) y = MatMul(r, w) }"""
    constants = {"s": np.float32(0.1), "z": np.int8(0), "w": np.eye(4, dtype=np.float32)}
    convert_qat_model(write_model(tmp_path / "c.onnx", chain, constants), tmp_path / "c")


def test_a_size_that_is_no_proof_is_in_no_file(tmp_path: Path) -> None:
    """The smaller of an axis and 100 is 100 both times: such models run with a smaller axis all the same."""
    text = """g (float[n, 4] x) => (float[k, 4] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        a = Shape <start = 0, end = 1> (x) m = Min(a, hundred) v = Slice(d, zero, m, zero)
        p = QuantizeLinear(v, s, z) r = DequantizeLinear(p, s, z) w0 = DequantizeLinear(w, s) y = MatMul(r, w0) }"""
    constants = {"s": np.float32(0.1), "z": np.int8(0), "w": np.eye(4, dtype=np.int8)}
    constants |= {"hundred": np.int64([100]), "zero": np.int64([0])}
    report, _ = convert_and_compare(write_model(tmp_path / "m.onnx", text, constants), feeds(7), units=0)
    assert len(report.converted) == 1
    for rows in (1, 99, 100, 101, 300):
        deploy, fake = DeploySession(report.deploy_model), ort.InferenceSession(report.fake_quant_model, AMCT_SO)
        found, expected = deploy.run(None, feeds(rows))[0], fake.run(None, feeds(rows))[0]
        assert found.shape == (min(rows, 100), 4) and (found == expected).all()
    for file in (report.deploy_model, report.fake_quant_model):
        infos = (d for v in onnx.load(file).graph.value_info for d in v.type.tensor_type.shape.dim)
        assert 100 not in {d.dim_value for d in infos}


def feeds(rows: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)}
