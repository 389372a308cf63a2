"""Dynamic operators against their float form, both in onnxruntime, and the verdict on the layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.common.onnxruntime_session import AMCT_SO
from amct_onnx.errors import NoQuantizerError
from amct_onnx.normalise.container import normalise_container
from amct_onnx.normalise.dynamic_quantization import expand_dynamic_quantization
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.deploy_evaluator import Evaluator, run
from support.older_libraries import needs_kernels
from support.written_models import convert_and_compare, write_model

RNG = np.random.default_rng(11)
MICROSOFT = "com.microsoft"
W = RNG.integers(-60, 60, (8, 5)).astype(np.int8)
K = RNG.integers(-60, 60, (4, 3, 3, 3)).astype(np.int8)
SCALE = np.float32(0.01)


def model_of(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[int], arrays: dict[str, np.ndarray], static: bool = True
) -> onnx.ModelProto:
    """Nodes from x to y; a static quantizer on a second output keeps the model a Q/DQ model."""
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    nodes = list(nodes)
    arrays = {"one": np.asarray(0.05, np.float32), "zero": np.asarray(0, np.int8), **arrays}
    if static:
        nodes.append(helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["xq"], "static_q"))
        nodes.append(helper.make_node("DequantizeLinear", ["xq", "one", "zero"], ["s"], "static_dq"))
        outputs.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(op_type: str, inputs: str, outputs: str, domain: str = "", **attributes: object) -> onnx.NodeProto:
    """A node; names separated by blanks, '-' for an omitted input."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), op_type, domain=domain, **attributes)


CAST = helper.make_node("Cast", ["acc"], ["accf"], "Cast", to=TensorProto.FLOAT)
DYNAMIC = node("DynamicQuantizeLinear", "x", "q xs xz")
SCALED = [CAST, node("Mul", "xs ws", "sws"), helper.make_node("Mul", ["accf", "sws"], ["y"], "MulOut")]
CASES: dict[str, tuple[onnx.ModelProto, str]] = {
    "matmul": (
        model_of([DYNAMIC, node("MatMulInteger", "q w xz", "acc"), *SCALED], (2, 3, 8), {"w": W, "ws": SCALE}),
        "MatMulInteger",
    ),
    "matmul, zero point of the weight": (
        model_of(
            [DYNAMIC, node("MatMulInteger", "q w xz wz", "acc"), *SCALED],
            (3, 8),
            {"w": (W.astype(int) + 128).astype(np.uint8), "wz": np.asarray(128, np.uint8), "ws": SCALE},
        ),
        "MatMulInteger",
    ),
    "conv": (
        model_of(
            [DYNAMIC, node("ConvInteger", "q w xz", "acc", pads=[1, 1, 1, 1]), *SCALED],
            (1, 3, 6, 6),
            {"w": K, "ws": SCALE},
        ),
        "ConvInteger",
    ),
    "reshape between": (
        model_of(
            [DYNAMIC, node("Reshape", "q shape", "r"), node("MatMulInteger", "r w xz", "acc"), *SCALED],
            (2, 4, 4),
            {"w": W, "ws": SCALE, "shape": np.asarray([4, 8])},
        ),
        "MatMulInteger",
    ),
    "matmul to float": (
        model_of(
            [DYNAMIC, node("MatMulIntegerToFloat", "q w xs ws xz - b", "y", MICROSOFT)],
            (3, 8),
            {"w": W, "ws": np.full(5, SCALE), "b": np.arange(5, dtype=np.float32)},
        ),
        "MatMulIntegerToFloat",
    ),
    "dynamic matmul": (
        model_of([node("DynamicQuantizeMatMul", "x w ws", "y", MICROSOFT)], (3, 8), {"w": W, "ws": SCALE}),
        "DynamicQuantizeMatMul",
    ),
    "dequantized at once": (
        model_of(
            [DYNAMIC, node("DequantizeLinear", "q xs xz", "d"), node("MatMul", "d w", "y")],
            (3, 8),
            {"w": W.astype(np.float32)},
        ),
        "MatMul",
    ),
}
DYNAMIC_KINDS = {
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
}


def inputs(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Random x."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": (RNG.standard_normal(shape) * 2 + 0.5).astype(np.float32)}


def outputs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs."""
    return ort.InferenceSession(model.SerializeToString(), AMCT_SO).run(None, feeds)  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", CASES)
def test_float_form_equals_source(case: str) -> None:
    model, layer = CASES[case]
    result = normalise_container(ir.from_proto(model))
    expand_dynamic_quantization(result)
    after = ir.to_proto(result)
    assert not {n.op_type for n in after.graph.node} & DYNAMIC_KINDS
    assert layer in {n.name for n in after.graph.node}
    needs_kernels(model)
    for feeds in (inputs(model), {"x": np.zeros_like(inputs(model)["x"])}):
        before, now = outputs(model, feeds), outputs(after, feeds)
        # equal integers; the two float32 factors may be multiplied in another order
        np.testing.assert_allclose(now[0], before[0], rtol=2.0**-21, atol=1e-6)
        assert np.array_equal(now[1], before[1])


@pytest.mark.parametrize("case", CASES)
def test_layer_is_refused_and_the_rest_converts(case: str, tmp_path: Path) -> None:
    model, layer = CASES[case]
    onnx.save(model, tmp_path / "source.onnx")
    report = convert_qat_model(tmp_path / "source.onnx", tmp_path / "m")
    (entry,) = report.layers
    assert (entry.name, entry.verdict, entry.reason) == (layer, "refused", "dynamic-quantization")
    feeds = inputs(model)
    fake, deploy = run(report.fake_quant_model, feeds), Evaluator(report.deploy_model).run(feeds)
    assert {n.op_type for n in onnx.load(report.deploy_model).graph.node}.isdisjoint(DYNAMIC_KINDS)
    np.testing.assert_allclose(deploy["y"], fake["y"], rtol=2.0**-21, atol=1e-6)
    needs_kernels(model)
    np.testing.assert_allclose(fake["y"], outputs(model, feeds)[0], rtol=2.0**-21, atol=1e-6)


def test_dynamic_quantize_linear_gives_the_same_integers() -> None:
    """Its outputs themselves, for ranges with and without zero."""
    graph = helper.make_graph(
        [
            DYNAMIC,
            helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["n"]),
            helper.make_node("DequantizeLinear", ["n", "one", "zero"], ["o"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64])],
        [
            helper.make_tensor_value_info("q", TensorProto.UINT8, [64]),
            helper.make_tensor_value_info("xs", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("xz", TensorProto.UINT8, []),
            helper.make_tensor_value_info("o", TensorProto.FLOAT, [64]),
        ],
        [
            numpy_helper.from_array(np.asarray(0.1, np.float32), "one"),
            numpy_helper.from_array(np.asarray(0, np.int8), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    result = normalise_container(ir.from_proto(model))
    expand_dynamic_quantization(result)
    after = ir.to_proto(result)
    base = RNG.standard_normal(64).astype(np.float32)
    for x in (base, np.abs(base) + 1, -np.abs(base) - 1, base * 0, base * 1e-3):
        for now, before in zip(outputs(after, {"x": x}), outputs(model, {"x": x}), strict=True):
            assert now.dtype == before.dtype and np.array_equal(now, before)


@pytest.mark.parametrize("op_type", ["MatMulInteger", "ConvInteger"])
def test_integer_layer_behind_static_quantizer_becomes_int8(op_type: str, tmp_path: Path) -> None:
    shape, weight = ((3, 8), W) if op_type == "MatMulInteger" else ((1, 3, 6, 6), K)
    quantize = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "Q")
    model = model_of(
        [quantize, node(op_type, "q w z", "acc"), CAST, helper.make_node("Mul", ["accf", "sws"], ["y"], "MulOut")],
        shape,
        {"w": weight, "s": np.float32(0.03), "z": np.asarray(7, np.int8), "sws": np.float32(0.0003)},
        static=False,
    )
    if op_type == "ConvInteger":  # onnxruntime has ConvInteger of uint8 activations only
        model.graph.initializer[[t.name for t in model.graph.initializer].index("z")].CopyFrom(
            numpy_helper.from_array(np.asarray(120, np.uint8), "z")
        )
    onnx.save(model, tmp_path / "source.onnx")
    report = convert_qat_model(tmp_path / "source.onnx", tmp_path / "m")
    assert [e.name for e in report.converted] == [op_type] and not report.refused
    feeds = inputs(model)
    (fake,) = run(report.fake_quant_model, feeds).values()
    needs_kernels(model)
    assert np.array_equal(fake, outputs(model, feeds)[0])


@pytest.mark.parametrize(("op_type", "kind"), [("MatMulInteger", np.int8), ("ConvInteger", np.uint8)])
def test_integer_layer_of_a_graph_input_becomes_int8(op_type: str, kind: type[np.generic], tmp_path: Path) -> None:
    """Its integers are the quantized activation; only the zero point matters to the sum."""
    random = np.random.default_rng(0)
    conv = op_type == "ConvInteger"
    limits = np.iinfo(kind)
    shape, weight = ((1, 3, 5, 5), (4, 3, 3, 3)) if conv else ((2, 8), (8, 4))
    constants = {
        "w": random.integers(-128, 128, weight).astype(np.int8),
        "z": np.asarray(117, kind),
        "f": np.float32(0.001),
    }
    text = f"""g ({np.dtype(kind).name}[{", ".join(map(str, shape))}] x) => (float y) {{
        a = {op_type}(x, w, z) c = Cast <to = 1> (a) y = Mul(c, f)
    }}"""
    feeds = {"x": random.integers(limits.min, limits.max + 1, shape).astype(kind)}
    report, _ = convert_and_compare(write_model(tmp_path / "m.onnx", text, constants), feeds, units=0)
    assert len(report.converted) == len(report.layers) == 1


def test_dynamic_only_model_is_named() -> None:
    model = model_of([DYNAMIC, node("MatMulInteger", "q w xz", "acc"), *SCALED], (3, 8), {"w": W, "ws": SCALE}, False)
    with pytest.raises(NoQuantizerError, match="DynamicQuantizeLinear"):
        expand_dynamic_quantization(normalise_container(ir.from_proto(model)))


def test_dynamic_lstm_costs_itself_only(tmp_path: Path) -> None:
    constants = {
        "w": RNG.integers(-60, 60, (1, 8, 16)).astype(np.int8),
        "r": RNG.integers(-60, 60, (1, 4, 16)).astype(np.int8),
        "m": W,
        "sw": np.asarray([SCALE]),
        "zw": np.zeros(1, np.int8),
        "s": np.float32(0.05),
        "z": np.int8(3),
    }
    text = """g (float[3, 2, 8] x) => (float y, float u) {
        y = com.microsoft.DynamicQuantizeLSTM <hidden_size = 4> (x, w, r, , , , , , sw, zw, sw, zw)
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear(m, s) u = MatMul(d, v)
    }"""
    path = write_model(tmp_path / "m.onnx", text, constants, imports='"com.microsoft" : 1')
    report = convert_qat_model(path, tmp_path / "out")
    assert [e.op_type for e in report.converted] == ["MatMul"]
    assert [(e.op_type, e.reason) for e in report.refused] == [("DynamicQuantizeLSTM", "foreign-operator")]
    assert report.warnings == ()


def test_other_zero_point_than_the_quantizer_is_the_reason(tmp_path: Path) -> None:
    constants = {"s": np.float32(0.05), "z": np.int8(3), "w": W}
    text = """g (float[3, 8] x) => (int32 y) { q = QuantizeLinear(x, s, z) y = MatMulInteger(q, w) }"""
    feeds = {"x": RNG.normal(size=(3, 8)).astype(np.float32)}
    report, _ = convert_and_compare(write_model(tmp_path / "m.onnx", text, constants), feeds, units=0)
    entry = report.refused[0]
    assert entry.reason == "activation-zero-point" and entry.detail.startswith("it takes 0 for the zero point")
    assert [w.split(" reads")[0] for w in report.warnings] == [f"Node '{entry.name}' (MatMulInteger)"]
