"""Graphs of each operator in onnxruntime before and after the opset is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from amct_onnx.common.onnxruntime_session import AMCT_SO
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.normalise.container import normalise_container
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.deploy_evaluator import run
from support.golden_models import MODELS
from support.older_libraries import needs_kernels, needs_opset

RNG = np.random.default_rng(5)
Arrays = dict[str, np.ndarray]


def one_node(
    op_type: str, opset: int, feeds: Arrays, constants: Arrays, names: str, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node; names are its inputs, '-' for an omitted one."""
    outputs = attributes.pop("outputs", ["y"])
    kind = attributes.pop("kind", TensorProto.FLOAT)
    node = helper.make_node(op_type, [n.strip("-") for n in names.split()], outputs, "the_node", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()],
        [helper.make_tensor_value_info(o, kind, None) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def normalised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model after the container rules."""
    after = ir.to_proto(normalise_container(ir.from_proto(model)))
    (opset,) = after.opset_import
    assert 11 <= opset.version <= 18
    for node in after.graph.node:
        assert not node.domain
        schema = onnx.defs.get_schema(node.op_type, opset.version, "")
        assert not schema.deprecated and {a.name for a in node.attribute} <= set(schema.attributes)
    return after


def results(model: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray]:
    """All outputs, in onnxruntime."""
    return ort.InferenceSession(model.SerializeToString(), AMCT_SO).run(None, feeds)  # type: ignore[no-any-return]


def reference(model: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray]:
    """All outputs, in onnx's evaluator: for operators that onnxruntime has no kernel of."""
    return ReferenceEvaluator(model).run(None, feeds)  # type: ignore[no-any-return]


def x(*shape: int) -> np.ndarray:
    """Random float32."""
    return RNG.standard_normal(shape).astype(np.float32)


Case = tuple[str, int, Arrays, Arrays, str, dict[str, Any]]
IMAGE = x(2, 4, 6, 6)
GRID = np.clip(x(2, 5, 5, 2), -1.2, 1.2)
QKV = {"q": x(1, 2, 3, 8), "k": x(1, 2, 5, 8), "v": x(1, 2, 5, 8)}
CASES: dict[str, Case] = {
    "Gelu": ("Gelu", 20, {"x": x(3, 4)}, {}, "x", {}),
    "Gelu, tanh": ("Gelu", 22, {"x": x(3, 4)}, {}, "x", dict(approximate="tanh")),
    "GroupNormalization": (
        "GroupNormalization",
        21,
        {"x": IMAGE},
        {"s": x(4), "b": x(4)},
        "x s b",
        dict(num_groups=2, epsilon=1e-3),
    ),
    "GridSample": ("GridSample", 20, {"x": IMAGE, "g": GRID}, {}, "x g", {}),
    "GridSample, cubic": (
        "GridSample",
        22,
        {"x": IMAGE, "g": GRID},
        {},
        "x g",
        dict(mode="cubic", padding_mode="border"),
    ),
    "GridSample, nearest": ("GridSample", 20, {"x": IMAGE, "g": GRID}, {}, "x g", dict(mode="nearest")),
    "AveragePool": (
        "AveragePool",
        22,
        {"x": IMAGE},
        {},
        "x",
        dict(kernel_shape=[2, 2], strides=[2, 2], dilations=[1, 1]),
    ),
    "AveragePool, ceil": (
        "AveragePool",
        19,
        {"x": IMAGE},
        {},
        "x",
        dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    ),
    "MaxPool": ("MaxPool", 22, {"x": IMAGE}, {}, "x", dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    "Pad": ("Pad", 21, {"x": IMAGE}, {"p": np.asarray([0, 0, 1, 2, 0, 0, 2, 1])}, "x p", dict(mode="reflect")),
    "Reduce": ("ReduceMax", 20, {"x": IMAGE}, {"a": np.asarray([1, 2])}, "x a", dict(keepdims=0)),
    "Resize": (
        "Resize",
        19,
        {"x": IMAGE},
        {"s": np.asarray([1, 1, 2, 1.5], np.float32)},
        "x - s",
        dict(mode="linear", coordinate_transformation_mode="half_pixel"),
    ),
    "Cast": ("Cast", 21, {"x": IMAGE * 9}, {}, "x", dict(to=TensorProto.INT32, saturate=1, kind=TensorProto.INT32)),
    "CastLike": ("CastLike", 21, {"x": IMAGE, "t": np.zeros(1)}, {}, "x t", dict(kind=TensorProto.DOUBLE, saturate=1)),
    "DFT": ("DFT", 20, {"x": x(2, 8, 1)}, {"a": np.asarray(1)}, "x - a", {}),
    "DFT, default axis": ("DFT", 20, {"x": x(2, 8, 3, 1)}, {}, "x", {}),
    "Transpose": ("Transpose", 23, {"x": IMAGE}, {}, "x", dict(perm=[0, 2, 3, 1])),
    "Conv": ("Conv", 22, {"x": IMAGE}, {"w": x(3, 4, 3, 3)}, "x w", dict(pads=[1, 1, 1, 1])),
    "HardSwish": ("HardSwish", 22, {"x": IMAGE}, {}, "x", {}),
    "RMSNormalization": ("RMSNormalization", 23, {"x": x(3, 8)}, {"s": x(8)}, "x s", dict(axis=-1)),
    "Attention": ("Attention", 23, QKV, {}, "q k v", {}),
    "Attention, causal": ("Attention", 23, QKV, {}, "q k v", dict(is_causal=1, scale=0.3)),
    "RotaryEmbedding": (
        "RotaryEmbedding",
        23,
        {"x": x(1, 2, 3, 8)},
        {"c": x(1, 3, 4), "s": x(1, 3, 4)},
        "x c s",
        {},
    ),
}
BY_REFERENCE: dict[str, Case] = {
    "Swish": ("Swish", 24, {"x": IMAGE}, {}, "x", dict(alpha=0.7)),
    "AffineGrid": ("AffineGrid", 20, {"t": x(2, 2, 3)}, {"s": np.asarray([2, 3, 4, 5])}, "t s", {}),
    "Range": (
        "Range",
        27,
        {"a": np.asarray(1, np.float32), "b": np.asarray(9, np.float32), "d": np.asarray(2, np.float32)},
        {},
        "a b d",
        {},
    ),
    "Range, default written out": (
        "Range",
        27,
        {"a": np.asarray(1, np.float32), "b": np.asarray(9, np.float32), "d": np.asarray(2, np.float32)},
        {},
        "a b d",
        dict(stash_type=1),
    ),
    "SpaceToDepth": ("SpaceToDepth", 28, {"x": IMAGE}, {}, "x", dict(blocksize=2, mode="CRD")),
    "Mod of integers": (
        "Mod",
        28,
        {"x": RNG.integers(-9, 9, 20), "m": np.full(20, 4)},
        {},
        "x m",
        dict(kind=TensorProto.INT64),
    ),
}


def check(case: Case, before: Callable[[onnx.ModelProto, Arrays], list[np.ndarray]]) -> onnx.ModelProto:
    op_type, opset, feeds, constants, names, attributes = case
    model = one_node(op_type, opset, feeds, constants, names, **attributes)
    needs_kernels(model) if before is results else needs_opset(opset)
    after = normalised(model)
    for now, then in zip(results(after, feeds), before(model, feeds), strict=True):
        assert now.dtype == then.dtype and now.shape == then.shape
        # a body computes in float32 what a fused kernel may sum in another order
        np.testing.assert_allclose(now, then, rtol=2e-5, atol=2e-6)
    return after


@pytest.mark.parametrize("case", CASES)
def test_operator_gives_the_same_numbers(case: str) -> None:
    check(CASES[case], results)


@pytest.mark.parametrize("case", BY_REFERENCE)
def test_operator_without_kernel_gives_the_same_numbers(case: str) -> None:
    check(BY_REFERENCE[case], reference)


def test_body_holds_plain_operators() -> None:
    """No CastLike, for which ATC would need a plugin, and no call is left."""
    after = check(CASES["Gelu"], results)
    kinds = {n.op_type for n in after.graph.node}
    assert "Erf" in kinds and not kinds & {"CastLike", "Gelu"} and not after.functions


def test_new_attribute_at_its_default_is_dropped() -> None:
    assert [n.op_type for n in check(BY_REFERENCE["Range, default written out"], reference).graph.node] == ["Range"]


def test_four_bit_weight_in_a_constant_node_is_no_obstacle(tmp_path: Path) -> None:
    """As exporters of opset 21 write it."""
    integers = RNG.integers(-8, 7, (3, 4, 1, 1)).astype(np.int8)
    weight = helper.make_tensor("w", TensorProto.INT4, integers.shape, integers.reshape(-1).tolist())
    nodes = [
        helper.make_node("Constant", [], ["w"], "constant", value=weight),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], "w_dq"),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dq"),
        helper.make_node("Conv", ["d", "wd"], ["y"], "conv"),
    ]
    constants = {"ws": np.asarray(0.1, np.float32), "s": np.asarray(0.02, np.float32), "z": np.asarray(0, np.int8)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "source.onnx")
    report = convert_qat_model(tmp_path / "source.onnx", tmp_path / "m")
    assert [e.name for e in report.converted] == ["conv"] and not report.refused
    (fake,) = run(report.fake_quant_model, {"x": IMAGE}).values()
    np.testing.assert_allclose(fake, results(model, {"x": IMAGE})[0], rtol=2e-5, atol=2e-6)


def test_bodies_of_control_flow_are_lowered() -> None:
    def branch(name: str, mode: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("GridSample", ["x", "g"], [f"{name}_s"], f"{name}_sample", mode=mode),
            helper.make_node("Gelu", [f"{name}_s"], [name], f"{name}_gelu"),
        ]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    graph = helper.make_graph(
        [
            helper.make_node(
                "If", ["c"], ["y"], "if", then_branch=branch("t", "linear"), else_branch=branch("e", "cubic")
            )
        ],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape),
            helper.make_tensor_value_info("g", TensorProto.FLOAT, GRID.shape),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    after = normalised(model)
    for choice in (True, False):
        feeds = {"c": np.asarray(choice), "x": IMAGE, "g": GRID}
        np.testing.assert_allclose(results(after, feeds)[0], results(model, feeds)[0], rtol=2e-5, atol=2e-6)


def test_default_domain_may_be_called_ai_onnx() -> None:
    model = one_node("Gelu", 20, {"x": IMAGE}, {}, "x", domain="ai.onnx")
    model.opset_import[0].domain = "ai.onnx"
    assert normalised(model).opset_import[0].version == 18


REFUSED: dict[str, tuple[Case, str]] = {
    "DeformConv": (
        ("DeformConv", 19, {"x": IMAGE, "o": x(2, 8, 5, 5)}, {"w": x(3, 4, 2, 2)}, "x w o", {}),
        "does not exist",
    ),
    "Pad": (("Pad", 19, {"x": IMAGE}, {"p": np.asarray([0, 0, 1, 2, 0, 0, 2, 1])}, "x p", dict(mode="wrap")), "wrap"),
    "Resize": (
        (
            "Resize",
            19,
            {"x": IMAGE},
            {"s": np.asarray([1, 1, 2, 2], np.float32)},
            "x - s",
            dict(coordinate_transformation_mode="half_pixel_symmetric"),
        ),
        "half_pixel_symmetric",
    ),
    "AveragePool": (
        ("AveragePool", 19, {"x": IMAGE}, {}, "x", dict(kernel_shape=[2, 2], dilations=[2, 2])),
        "dilations",
    ),
    "Cast": (("Cast", 19, {"x": IMAGE}, {}, "x", dict(to=TensorProto.FLOAT8E4M3FN, kind=17)), "FLOAT8E4M3FN"),
    "GridSample": (
        ("GridSample", 20, {"x": x(1, 2, 4, 4, 4), "g": x(1, 3, 3, 3, 3)}, {}, "x g", {}),
        "four axes",
    ),
    "Mod": (("Mod", 28, {"x": IMAGE, "m": IMAGE}, {}, "x m", {}), "fmod"),
    "Identity": (
        ("Transpose", 21, {"x": IMAGE.astype(np.int8)}, {}, "x", dict(kind=TensorProto.INT4)),
        "INT4",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_opset_18_cannot_say_is_refused_by_name(case: str) -> None:
    (op_type, opset, feeds, constants, names, attributes), word = REFUSED[case]
    needs_opset(opset)
    with pytest.raises(UnsupportedModelError) as caught:
        normalised(one_node(op_type, opset, feeds, constants, names, **attributes))
    message = str(caught.value)
    assert all(part in message for part in ("the_node", op_type, str(opset), "18", word)), message


def test_unknown_opset_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="99"):
        normalised(one_node("Relu", 99, {"x": IMAGE}, {}, "x"))


@pytest.mark.parametrize("version", range(19, onnx.defs.onnx_opset_version() + 1))
def test_every_operator_of_every_opset_is_decided(version: int) -> None:
    """Relabelled operators agree with opset 18 in the names of what a node may hold; nothing passes unseen."""
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain or schema.since_version != version or schema.name in ("QuantizeLinear", "DequantizeLinear"):
            continue
        inputs = [f"i{k}" for k in range(schema.min_input)]
        outputs = [f"o{k}" for k in range(max(1, schema.min_output))]
        node = helper.make_node(schema.name, inputs, outputs, "the_node")
        for name, attribute in schema.attributes.items():
            if attribute.default_value.name:
                node.attribute.append(attribute.default_value)
            elif attribute.required and "GRAPH" in str(attribute.type):
                body = helper.make_graph([], "b", [], [])
                node.attribute.append(helper.make_attribute(name, body))
            elif attribute.required:
                value: Any = {"INTS": [1], "STRINGS": ["a"], "FLOATS": [1.0], "FLOAT": 1.0, "STRING": "a"}
                node.attribute.append(helper.make_attribute(name, value.get(str(attribute.type).split(".")[-1], 1)))
        graph = helper.make_graph([node], "g", [], [onnx.ValueInfoProto(name=o) for o in outputs])
        graph.input.extend(onnx.ValueInfoProto(name=i) for i in inputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
        try:
            normalised(model)
        except UnsupportedModelError as error:
            assert f"'the_node': operator {schema.name} of opset {version}" in str(error)


@pytest.mark.parametrize("opset", [8, 9, 10])
def test_older_opsets_are_raised(opset: int) -> None:
    """Attributes that became inputs, in the graph and in a body."""

    def branch(name: str, low: float) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("Clip", ["x"], [name], f"clip_{name}", min=low, max=0.5)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, IMAGE.shape)],
        )

    nodes = [
        helper.make_node("If", ["c"], ["z"], "if", then_branch=branch("t", -0.5), else_branch=branch("e", 0.0)),
        helper.make_node("Pad", ["z"], ["p"], "pad", pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        helper.make_node("Unsqueeze", ["p"], ["y"], "unsqueeze", axes=[0]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=5)
    after = normalised(model)
    for choice in (True, False):
        feeds = {"c": np.asarray(choice), "x": IMAGE}
        assert np.array_equal(results(after, feeds)[0], results(model, feeds)[0])


def test_real_model_relabelled_up_converts_to_the_same(tmp_path: Path) -> None:
    """A model of opset 17 says the same in opset 21: its operators differ in types alone."""
    path = MODELS / "torchfx_digitsnet_i8sym_op17" / "model.onnx"
    plain = convert_qat_model(path, tmp_path / "a")
    model = onnx.load(path)
    model.opset_import[0].version, model.ir_version = 21, 10
    onnx.save(model, tmp_path / "new.onnx")
    report = convert_qat_model(tmp_path / "new.onnx", tmp_path / "b")
    assert len(report.converted) == len(plain.converted) > 0
    feeds = {model.graph.input[0].name: np.load(MODELS / "torchfx_digitsnet_i8sym_op17" / "testset.npz")["x"][:20]}
    for now, then in zip(
        run(report.fake_quant_model, feeds).values(), run(plain.fake_quant_model, feeds).values(), strict=True
    ):
        assert np.array_equal(now, then)


@pytest.mark.parametrize("opset", [9, 10, 13, 19])
def test_open_axes_of_an_output_stay_without_a_name(opset: int) -> None:
    """onnx's converter infers shapes, and makes up names where a Loop decides a size."""
    text = f"""<ir_version: 7, opset_import: ["" : {opset}]>
        g (float[2, 3] x, int64 n, bool c, int64 one) => (float[?, ?] y, float[?, ?] z) {{
            y = Loop (n, c, x) <body = b (int64 i, bool k, float[?, ?] v) => (bool k2, float[?, ?] w)
                {{ k2 = Identity (k) w = Concat <axis = 0> (v, v) }}>
            z = Relu (y) }}"""
    model = onnx.parser.parse_model(text)
    after = normalised(model)
    assert [v.SerializeToString() for v in after.graph.output] == [v.SerializeToString() for v in model.graph.output]
