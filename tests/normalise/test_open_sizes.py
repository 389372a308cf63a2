"""Sizes that follow from the graph although one axis is free, and sizes that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from amct_onnx import convert_qat_model
from amct_onnx.files.read import read_model
from amct_onnx.normalise.open_sizes import complete_open_sizes

NETWORKS = Path(__file__).parents[1] / "data" / "networks"
HALVES = """s = Shape (x) c = Gather (s, one) f = Div (c, two) e = Unsqueeze (f, zero)
    h = Slice (x, zero, e, ones) r = Relu (h) y = Relu (r)"""
CONSTANTS = """one = Constant <value_int = 1> () two = Constant <value_int = 2> () zero = Constant <value_ints = [0]> ()
    ones = Constant <value_ints = [1]> () """


def shapes(
    inputs: str, body: str, outputs: str = "float[a, b] y", **declared: list[Any]
) -> dict[str, list[Any] | None]:
    """The shapes behind the rule, of all but constants; ``declared`` are those before it."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {CONSTANTS} {body} }}'
    model = ir.from_proto(onnx.parser.parse_model(text))
    for value in (v for n in model.graph for v in n.outputs):
        if not value.is_graph_output():
            value.dtype = ir.DataType.INT64 if value.name in ("s", "c", "f", "e", "t") else ir.DataType.FLOAT
            value.shape = ir.Shape(declared[value.name or ""]) if value.name in declared else None
    complete_open_sizes(model)
    return {
        v.name or "": None if v.shape is None else [d if isinstance(d, int) else d.value for d in v.shape]
        for n in model.graph
        for v in n.outputs
        if n.op_type != "Constant"
    }


def test_a_half_of_a_fixed_axis_beside_a_free_one() -> None:
    """Integers, which nothing quantizes, and the output, whose shape is the model's interface, stay as they are."""
    found = shapes("float[n, 6] x", HALVES)
    assert found == dict.fromkeys(("s", "c", "f", "e")) | {"h": ["n", 3], "r": ["n", 3], "y": ["a", "b"]}


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


def test_a_model_without_open_sizes_is_left_alone(tmp_path: Path) -> None:
    model = read_model(NETWORKS / "dense.onnx")
    before = [(v.name, v.shape) for n in model.graph for v in n.outputs]
    complete_open_sizes(model)
    assert before == [(v.name, v.shape) for n in model.graph for v in n.outputs]
