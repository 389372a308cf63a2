"""The cost of a deploy model: work in int8, quantizers and what passes them, and what would gain most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import amct_onnx
from amct_onnx.verbs.convert.cost import Cost, Passes
from amct_onnx.verbs.convert.read_ledger import read_ledger
from amct_onnx.verbs.convert.screen import parts
from support.golden_models import MODELS

pytestmark = pytest.mark.usefixtures("one_process")


def cost(name: str, folder: Path) -> Cost:
    found = amct_onnx.convert_qat_model(MODELS / name / "model.onnx", folder / "m").cost
    assert found is not None
    return found


def test_work_and_quantizers_of_a_real_model(tmp_path: Path) -> None:
    """Counted by hand: 16 x 9 x 64 pixels, depthwise 16 x 9 x 64, ..., and the last layer 64 x 10."""
    found = cost("ort_digitsnet_qdq_u8_pc", tmp_path)
    model = onnx.load(tmp_path / "m_deploy_model.onnx")
    kinds = [n.op_type for n in model.graph.node]
    assert (found.int8_layers, found.unknown) == (7, 0)
    assert found.int8_macs == found.constant_macs == found.macs == macs_of(model)
    assert found.quant.nodes == kinds.count("AscendQuant") and found.anti_quant.nodes == kinds.count("AscendAntiQuant")
    assert found.source == Passes(12, 11114)
    assert [c.pairs for c in found.changes] and found.changes == tuple(sorted(found.changes, key=lambda c: -c.elements))


def macs_of(model: onnx.ModelProto) -> int:
    """Of a model whose images are 8 x 8: independent of the sizes that the graph tells."""
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer}
    pixels, total = {model.graph.input[0].name: 64}, 0
    for node in model.graph.node:
        size = pixels.get(node.input[0], 1)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv":
            size //= attributes["strides"][0] * attributes["strides"][1]
            out, *terms = weights[node.input[1]]
            total += size * out * terms[0] * terms[1] * terms[2]
        elif node.op_type in ("Gemm", "MatMul"):
            total += weights[node.input[1]][0] * weights[node.input[1]][1]
        elif node.op_type == "MaxPool":
            size //= attributes["strides"][0] * attributes["strides"][1]
        elif node.op_type in ("GlobalAveragePool", "ReduceMean"):
            size = 1
        for name in node.output:
            pixels[name] = size
    return total


def test_sizes_are_inferred_where_the_model_tells_none(tmp_path: Path) -> None:
    assert cost("ort_digitsnet_qop_u8", tmp_path).macs == 1286624


def test_layers_of_unknown_size_are_said(tmp_path: Path) -> None:
    model = onnx.load(MODELS / "torchfx_digitsnet_i8sym_op13" / "model.onnx")
    del model.graph.value_info[:]
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
    onnx.save(model, "m.onnx")
    report = amct_onnx.convert_qat_model("m.onnx", "u")
    assert report.cost is not None
    lines = report.cost.sentences()
    assert "Int8 work: 100.0%" in lines[0] and "Quantizers: " in lines[1]


HEAD = "q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) v = DequantizeLinear(w, s) h = MatMul(d, v)"
WORK = {
    "batch of the model": ("float[8, 5, 2] x", "y = Neg(h)", 160, 160, 0, ()),
    "free batch": ("float[n, 5, 2] x", "y = Neg(h)", 20, 20, 0, ("n",)),
    "Einsum": ("float[8, 5, 2] x", 'y = Einsum <equation = "bij,bkj->bik"> (h, h)', 560, 160, 0, ()),
    "Einsum with an ellipsis": (
        "float[8, 5, 2] x",
        'e = Einsum <equation = "...j,kj"> (h, W2) y = Neg(e)',
        400,
        160,
        0,
        (),
    ),
    "Einsum of three": (
        "float[8, 5, 2] x",
        'y = Einsum <equation = "bij,kj,lk"> (h, W2, W3)',
        160 + 240 + 480,
        160,
        0,
        (),
    ),
    "Einsum that sums first": ("float[8, 5, 2] x", 'y = Einsum <equation = "bij,bkj->b"> (h, h)', 176, 160, 0, ()),
    "LSTM": ("float[8, 5, 2] x", "y = LSTM <hidden_size = 3> (h, W, R)", 160 + 40 * 12 * 5, 160, 0, ()),
    "operator outside of ONNX": ("float[8, 5, 2] x", "y = some.Product(h)", 160, 160, 1, ()),
}


@pytest.mark.parametrize(("value", "node", "macs", "int8", "unknown", "free"), WORK.values(), ids=WORK)
def test_work_of_a_run(
    value: str, node: str, macs: int, int8: int, unknown: int, free: tuple[str, ...], tmp_path: Path
) -> None:
    """By hand: 8 x 5 rows of 2 x 2 products; Einsum 8 x 5 x 5 x 2, 40 x 3 x 2,
    then 40 x 3 x 4, and 8 x 2 where both are summed over their rows first; LSTM 4 x 3 rows of 2 + 3 a step."""
    text = f"""<ir_version: 8, opset_import: ["" : 17, "some" : 1]> g ({value}) => (float y) {{ {HEAD} {node} }}"""
    model = onnx.parser.parse_model(text)
    for name, shape, kind in (("w", (2, 2), np.int8), ("W", (1, 12, 2), np.float32), ("R", (1, 12, 3), np.float32)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, kind), name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "W2"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "W3"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.1), "s"))
    onnx.save(model, tmp_path / "m.onnx")
    found = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m").cost
    assert found is not None
    assert (found.macs, found.int8_macs, found.unknown, found.free_axes) == (macs, int8, unknown, free)
    lines = found.sentences()
    assert lines[0].startswith("Int8 work: 100.0% of") == (macs == int8)
    assert ("1 operator whose work is not" in lines[0]) == bool(unknown)
    assert ("Each free axis counts as 1: n." in lines) == bool(free)


@pytest.mark.parametrize("asymmetric", ["refuse", "sum"])
@pytest.mark.parametrize("bias", [1.0, 1e9])
def test_layer_counts_once_and_its_result_has_a_size(asymmetric: str, bias: float, tmp_path: Path) -> None:
    """The sums of an asymmetric weight, and a bias that is added in float, are parts of their layers."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4, 4, 4] x) => (float y) {
        q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) v = DequantizeLinear(w, s, z) h = Conv(d, v, b)
        p = QuantizeLinear(h, s) e = DequantizeLinear(p, s) y = Neg(e)
    }"""
    model = onnx.parser.parse_model(text)
    weight = np.arange(16, dtype=np.uint8).reshape(4, 4, 1, 1) * 16
    arrays = {"w": weight, "z": np.uint8(100), "s": np.float32(0.1), "b": np.float32([bias, 0, 0, 0])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items())
    onnx.save(model, tmp_path / "m.onnx")
    report = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m", asymmetric_weights=asymmetric)
    found = report.cost
    assert found is not None and (found.macs, found.int8_layers) == (256, len(report.converted))
    assert found.quant == found.source == Passes(2, 128)


def test_layers_whose_result_is_an_output_without_a_shape_count(tmp_path: Path) -> None:
    """One of the graph, and one of the body of an If, whose result has no name that both models know."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[8, 2] x, bool c) => (float y, float z)
        <float s = {0.1}, int8[2, 2] w = {1, 2, 3, 4}> {
        q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) v = DequantizeLinear(w, s) y = MatMul(d, v)
        z = If (c) <then_branch = t () => (float a) { a = MatMul(d, v) },
        else_branch = e () => (float b) { b = Neg(x) }>
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    found = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m").cost
    assert found is not None and (found.int8_macs, found.macs, found.unknown) == (64, 64, 0)


def test_two_quantizers_in_a_row_are_named_in_the_words_of_the_file(tmp_path: Path) -> None:
    """No AscendQuant, AscendAntiQuant or int8 layer is an operator to leave out."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[8, 2] x) => (float[8, 2] y)
        <float s = {{0.1}}, float t = {{0.03}}, int8[2, 2] w = {{1, 2, 3, 4}}> {{ {HEAD}
        p = QuantizeLinear(h, s) e = DequantizeLinear(p, s) r = QuantizeLinear(e, t) f = DequantizeLinear(r, t)
        y = Neg(f)
    }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    found = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m").cost
    assert found is not None
    assert [(c.producer, c.readers, c.elements) for c in found.changes] == [
        ("an int8 MatMul", "another quantizer", 32),
        ("another quantizer", "Neg", 32),
    ]
    assert "give both quantizers the same factors" in found.changes[0].advice
    assert read_ledger(tmp_path / "m").cost == found


FLOAT_QUANTIZERS = {
    "16 bits": ("p = QuantizeLinear(h, s, z) e = DequantizeLinear(p, s, z)", {"z": np.int16(0)}, 5),
    "16 bits, read twice": (
        "p = QuantizeLinear(h, s, z) f = DequantizeLinear(p, s, z) r = DequantizeLinear(p, s, z) e = Mul(f, r)",
        {"z": np.int16(0)},
        5,
    ),
    "float8": ("p = QuantizeLinear <output_dtype = 17> (h, s) e = DequantizeLinear(p, s)", {}, 25),
    "channels": (
        "p = QuantizeLinear <axis = 1> (h, c) e = DequantizeLinear <axis = 1> (p, c)",
        {"c": np.float32([0.1, 0.2])},
        5,
    ),
    "integers of another operator": ("k = Neg(n) f = DequantizeLinear(k, s) e = Add(f, h)", {}, 3),
}


@pytest.mark.parametrize(("body", "constants", "operators"), FLOAT_QUANTIZERS.values(), ids=FLOAT_QUANTIZERS)
def test_float_operators_that_quantize_are_a_class_of_their_own(
    body: str, constants: dict[str, np.generic], operators: int, tmp_path: Path
) -> None:
    """None of them is AscendQuant, and none a float operator between int8 layers; each passes over the tensor."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[8, 2] x, int32[8, 2] n) => (float y) {{ {HEAD} {body}
        i = Sigmoid(e) j = QuantizeLinear(i, s) m = DequantizeLinear(j, s) y = MatMul(m, v) }}"""
    model = onnx.parser.parse_model(text)
    arrays = {"s": np.float32(0.1), "w": np.ones((2, 2), np.int8), **constants}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items())
    onnx.save(model, tmp_path / "m.onnx")
    report = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m")
    found = report.cost
    assert found is not None and read_ledger(tmp_path / "m").cost == found
    before = int("p = QuantizeLinear" in body)
    assert (found.source_float, found.quant) == (Passes(before, 16 * before), Passes(2, 32))
    assert (found.anti_quant, found.float_quant) == (Passes(0, 0), Passes(operators, 16 * operators))
    assert found.float_operators == 1 + any(f"e = {kind}" in body for kind in ("Mul", "Add"))
    (change,) = found.changes
    assert (change.float_quant, change.elements, change.quant) == (operators, 16 * operators, 0)
    (row,) = report.residuals
    assert row.action == "float-chain" and change.advice.partition(": ")[2].partition(";")[0] in row.detail
    assert any(f"{operators} float operators quantize where AscendQuant cannot" in s for s in found.sentences())


def test_changes_are_sorted_by_what_passes(tmp_path: Path) -> None:
    """Five operators over 16 elements cost more than two over 32, and a dequantizer that shares its quantizer less."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[8, 2] x) => (float y, float z, float u) {{ {HEAD}
        p = QuantizeLinear(h, s, i) e = DequantizeLinear(p, s, i) y = Sigmoid(e)
        f = Concat <axis = 0> (h, h) k = Exp(f) l = QuantizeLinear(k, s) m = DequantizeLinear(l, s) z = Neg(m)
        u = Tanh(d)
    }}"""
    model = onnx.parser.parse_model(text)
    arrays = {"s": np.float32(0.1), "w": np.ones((2, 2), np.int8), "i": np.int16(0)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items())
    onnx.save(model, tmp_path / "m.onnx")
    found = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m").cost
    assert found is not None
    assert [(c.readers, c.gain()) for c in found.changes] == [
        ("Sigmoid", "5 float operators for 80 elements"),
        ("Neg", "1 AscendQuant and 1 AscendAntiQuant for 64 elements"),
        ("Tanh", "1 AscendAntiQuant for 16 elements"),
    ]


def test_clip_of_a_narrow_range_counts(tmp_path: Path) -> None:
    """4 bits are AscendQuant behind a Clip, in front of a layer too."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[8, 2] x) => (float y)
        <float s = {0.1}, int8[2, 2] w = {1, 2, 3, 4}> {
        q = QuantizeLinear <output_dtype = 22> (x, s) d = DequantizeLinear(q, s) v = DequantizeLinear(w, s)
        h = MatMul(d, v) p = QuantizeLinear <output_dtype = 22> (h, s) e = DequantizeLinear(p, s) y = Neg(e)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    found = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m").cost
    assert found is not None and (found.source_float, found.float_quant) == (Passes(0, 0), Passes(2, 32))
    assert (found.quant, found.anti_quant) == (Passes(2, 32), Passes(1, 16))
    assert found.changes[0].gain() == "1 AscendQuant, 1 AscendAntiQuant and 1 float operator for 48 elements"


def test_two_quantizers_in_a_row_save_the_dearer_when_they_become_one(tmp_path: Path) -> None:
    """The first shares its AscendQuant with a layer; with its factors the second needs none of its own either."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[8, 2] x) => (float y, float z)
        <float s = {{0.1}}, float t = {{0.03}}, int8[2, 2] w = {{1, 2, 3, 4}}> {{ {HEAD}
        p = QuantizeLinear(h, s) e = DequantizeLinear(p, s) r = QuantizeLinear(e, FACTOR)
        f = DequantizeLinear(r, FACTOR) y = Neg(f) z = MatMul(e, v)
    }}"""
    found = []
    for factor in "ts":
        onnx.save(onnx.parser.parse_model(text.replace("FACTOR", factor)), tmp_path / "m.onnx")
        cost = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m").cost
        assert cost is not None
        found.append(cost)
    before, after = found
    (change,) = [c for c in before.changes if c.readers == "another quantizer"]
    assert change.gain() == "1 AscendQuant and 1 AscendAntiQuant for 32 elements"
    assert (before.quant.nodes - after.quant.nodes, before.anti_quant.nodes - after.anti_quant.nodes) == (1, 1)


def test_long_names_are_shortened_on_the_screen_alone(tmp_path: Path) -> None:
    name = "model/" + "block/" * 60 + "s"
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[8, 2] x) => (float[8, 2] y)
        <float s = {0.1}> { k = Sigmoid(x) p = QuantizeLinear(k, s) e = DequantizeLinear(p, s) y = Neg(e) }"""
    model = onnx.parser.parse_model(text)
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = name
    onnx.save(model, tmp_path / "m.onnx")
    report = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m")
    assert report.cost is not None and name in report.cost.changes[0].advice
    (line,) = [str(part) for part in parts(report, 80) if "would go" in str(part)]
    assert len(line) < 250 and "…" in line


def test_all_is_said_of_all_alone() -> None:
    none = Passes(0, 0)
    found = Cost(9999, 9999, 9998, 1, 0, 1, 1, none, none, none, none, none, ())
    line = found.sentences()[0]
    assert "over 99.9% of 9,999 multiply-accumulates a run, under 0.1% of those" in line
    assert "1 float operator stands" in line


@pytest.mark.parametrize("size", [1, 7])
def test_a_residual_names_its_operators(size: int, tmp_path: Path) -> None:
    """Quantized for a Softmax alone: nothing is int8, and the advice names the operators on both sides."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"], "sigmoid"),
        helper.make_node("QuantizeLinear", ["s", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "d"),
        helper.make_node("Softmax", ["d"], ["y"], "softmax"),
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", size]) for n in "xy"]
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.01]),
        helper.make_tensor("zero", TensorProto.INT8, [], [0]),
    ]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), "m.onnx")
    found = amct_onnx.convert_qat_model("m.onnx", "m").cost
    assert found is not None
    (change,) = found.changes
    assert (change.producer, change.readers, change.pairs, change.elements) == ("Sigmoid", "Softmax", 1, 2 * size)
    assert change.gain() == f"1 AscendQuant and 1 AscendAntiQuant for {2 * size} elements"
    assert "at 's'" in change.advice and "neither the output of Sigmoid nor the inputs of Softmax" in change.advice
    assert (found.macs, found.int8_layers) == (0, 0)


@pytest.mark.parametrize("size", [-1, -(1 << 62), (1 << 62) + 1])
def test_size_that_no_tensor_has_is_none(size: int, tmp_path: Path) -> None:
    """Old exporters declare -1 for a free size."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 4] y)
        <float s = {0.1}, int8[8, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2,
        3, 4, 5, 6, 7, 8}> {
        q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) v = DequantizeLinear(w, s) y = MatMul(d, v)
    }"""
    model = onnx.parser.parse_model(text)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(model, tmp_path / "m.onnx")
    amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "m")
    found = read_ledger(tmp_path / "m")
    assert len(found.layers) == 1
