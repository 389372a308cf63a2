"""Every rule has a model that breaks it, which check finds, and a good model, in which check finds nothing."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.acceptance.checker import check
from amct_onnx.acceptance.products import PRODUCTS
from amct_onnx.acceptance.report import ERROR, NOTE, CheckReport
from amct_onnx.acceptance.rule import Rule
from amct_onnx.acceptance.rules import RULES
from deploy_models import (
    deq_scale,
    dequant,
    good_model,
    initializer,
    insert_behind,
    make_external,
    node,
    quant,
    set_attribute,
    set_initializer,
)

Break = Callable[[onnx.ModelProto], None]
BREAKS: dict[str, list[Break]] = {}
ALWAYS = {"float16-chain"}
"""Holds for every quantized model on all products but 950."""


def breaks(*rules: str) -> Callable[[Break], Break]:
    def register(function: Break) -> Break:
        for rule in rules:
            BREAKS.setdefault(rule, []).append(function)
        return function

    return register


# -- container ------------------------------------------------------------------------------------------------------


@breaks("no-graph-input")
def _(model: onnx.ModelProto) -> None:
    del model.graph.input[:]
    set_initializer(model, "x", np.zeros((1, 32, 8, 8), np.float32))


@breaks("no-graph-output")
def _(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


@breaks("output-not-produced")
def _(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "z"


@breaks("input-not-produced")
def _(model: onnx.ModelProto) -> None:
    node(model, "sum").input[1] = "nowhere"


@breaks("opset-entries")
def _(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


@breaks("opset-missing")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = "com.example"


@breaks("opset-unregistered", "opset-undocumented")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 19


@breaks("opset-undocumented")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 10


@breaks("opset-unregistered")
def _(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 7


@breaks("local-functions")
def _(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Sigmoid", ["a"], ["b"])]
    function = helper.make_function("local", "Soft", ["a"], ["b"], body, [helper.make_opsetid("", 13)])
    model.functions.append(function)
    node(model, "sigmoid1").op_type, node(model, "sigmoid1").domain = "Soft", "local"


@breaks("duplicate-name")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid2").name = "sigmoid1"


@breaks("duplicate-name")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid2").name = "x"


@breaks("duplicate-name")
def _(model: onnx.ModelProto) -> None:
    names = sorted(t.name for t in model.graph.initializer)
    node(model, "sigmoid2").name = f"conv.b_Initializer_{names.index('conv.b')}"


@breaks("duplicate-name", "unnamed-node")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid2").name = "Sigmoid_0"
    node(model, "sigmoid1").name = ""


@breaks("cycle")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type = "Add"
    node(model, "sigmoid1").input.append("deconv.dequant.out")


@breaks("cycle")
def _(model: onnx.ModelProto) -> None:
    """Through a subgraph that captures what lies behind its holder."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["y"], ["inner"], "inner")],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    set_initializer(model, "condition", np.array(True))
    made = helper.make_node("If", ["condition"], ["s1"], "if", then_branch=inner, else_branch=inner)
    node(model, "sigmoid1").CopyFrom(made)


@breaks("external-missing", "external-parameter")
def _(model: onnx.ModelProto) -> None:
    make_external(model, "conv.w", "absent.bin")


@breaks("external-missing")
def _(model: onnx.ModelProto) -> None:
    Path("short.bin").write_bytes(b"12")
    make_external(model, "conv.w", "short.bin")


@breaks("external-absolute")
def _(model: onnx.ModelProto) -> None:
    make_external(model, "conv.w", str(Path("weights.bin").resolve()))


@breaks("external-parameter")
def _(model: onnx.ModelProto) -> None:
    Path("param.bin").write_bytes(deq_scale(32).tobytes())
    make_external(model, "conv.dequant.param", "param.bin")


@breaks("constant-type")
def _(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type, tensor.raw_data = "odd", TensorProto.UINT4, b"\x12"
    tensor.dims.append(2)


@breaks("dynamic-input", "unknown-channels")
def _(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"


@breaks("dynamic-input")
def _(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


# -- operators ------------------------------------------------------------------------------------------------------


@breaks("foreign-domain")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv.quant").domain = "amct.customop"


@breaks("leftover-quantizer")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "scale", np.array(0.1, np.float32))
    insert_behind(model, "s1", "QuantizeLinear", ["scale"])


@breaks("no-plugin")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type = "AscendWeightQuant"


@breaks("made-by-compiler")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv.dequant").op_type = "AscendRequant"


@breaks("unknown-operator")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type = "Sigmoidal"


# -- Ascend operators -----------------------------------------------------------------------------------------------


@breaks("quant-scale-lost")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.quant", scale=None)


@breaks("quant-scale-lost")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "skip.antiquant", scale=1)


@breaks("quant-offset-lost")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.quant", offset=3)


@breaks("quant-offset-absent")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "deconv.quant", offset=None)


def _with_scale(value: float) -> Break:
    return lambda model: set_attribute(model, "conv.quant", scale=value)


for bad in (0.0, -1.0, float("inf"), float("nan")):
    breaks("quant-scale-value")(_with_scale(bad))
for bad in (1e-5, 70000.0):
    breaks("quant-scale-range")(_with_scale(bad))


def _with_offset(value: float) -> Break:
    return lambda model: set_attribute(model, "conv.quant", offset=value)


for bad in (0.5, 128.0, -129.0, float("nan")):
    breaks("quant-offset-value")(_with_offset(bad))


def _with_dst_type(value: object) -> Break:
    return lambda model: set_attribute(model, "conv.quant", dst_type=value)


for kind in ("UINT8", "int4", 3):
    breaks("quant-dst-type")(_with_dst_type(kind))
breaks("quant-int16")(_with_dst_type("INT16"))
breaks("int4")(_with_dst_type("INT4"))


@breaks("int4-odd")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.quant", dst_type="INT4")
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 7


@breaks("compiler-flag", "dequant-sqrt-vector")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", sqrt_mode=1)


@breaks("compiler-flag")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", relu_flag=1)


@breaks("quant-rounding")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.quant", round_mode="Floor")


@breaks("result-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", dtype=10)


@breaks("result-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", dtype="FLOAT")


@breaks("result-bfloat16")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv.dequant", dtype=27)


@breaks("ascend-inputs")
def _(model: onnx.ModelProto) -> None:
    del node(model, "conv.dequant").input[1]


@breaks("quant-input-type")
def _(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


@breaks("deq-scale-variable", "deq-scale-variable-unchecked")
def _(model: onnx.ModelProto) -> None:
    insert_behind(model, "conv.dequant.param", "Identity")


@breaks("deq-scale-rank", "deq-scale-rank-unchecked")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "deconv.dequant.param", deq_scale(1).reshape(()))


@breaks("deq-scale-rank", "deq-scale-rank-unchecked")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.dequant.param", deq_scale(32).reshape(1, 32, 1, 1))


@breaks("deq-scale-length")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.dequant.param", deq_scale(31))


@breaks("deq-scale-type")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.dequant.param", np.full(32, 0.01, np.float32))


@breaks("deq-scale-float16")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.dequant.param", np.full(32, 0.01, np.float16))


def _with_bits(bits: int) -> Break:
    def function(model: onnx.ModelProto) -> None:
        values = deq_scale(32)
        values[7] |= np.uint64(bits)
        set_initializer(model, "conv.dequant.param", values)

    return function


for shifted in (3 << 32, 5 << 40, 1 << 48):
    breaks("deq-scale-bits")(_with_bits(shifted))


def _with_deq_scale(value: float) -> Break:
    return lambda model: set_initializer(model, "conv.dequant.param", deq_scale(32, value))


for bad in (0.0, -1.0, float("inf"), float("nan")):
    breaks("deq-scale-value")(_with_deq_scale(bad))
for bad in (1e-9, 1e5):
    breaks("deq-scale-float16-range")(_with_deq_scale(bad))
breaks("deq-scale-square-root")(_with_deq_scale(1e-5))


@breaks("antiquant-factors")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "skip.antiquant", offset=5.0)


@breaks("antiquant-factors")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "skip.antiquant", scale=8.0)


@breaks("float16-chain")
def _(model: onnx.ModelProto) -> None:
    """Nothing to break: see test_rule_finds_what_breaks_it."""


# -- attributes -----------------------------------------------------------------------------------------------------


@breaks("attribute-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", pads=[1.0, 1.0, 1.0, 1.0])


@breaks("attribute-type")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "gemm", alpha=2)


@breaks("conv-geometry")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", kernel_shape=None, strides=None, pads=None, dilations=None)


@breaks("conv-kernel-shape")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", kernel_shape=None)


@breaks("conv-transpose-kernel-shape")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "deconv", kernel_shape=None)


@breaks("odd-pads")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", pads=[1, 1, 1])


def _as_3d(model: onnx.ModelProto, name: str) -> None:
    set_initializer(model, f"{name}.w", np.ones((32, 32, 1, 3, 3), np.int8))
    ones = [1, 1, 1]
    set_attribute(model, name, kernel_shape=[1, 3, 3], strides=ones, dilations=ones, pads=[0, 1, 1, 0, 1, 1])


@breaks("conv-auto-pad-3d", "conv-3d")
def _(model: onnx.ModelProto) -> None:
    _as_3d(model, "conv")
    set_attribute(model, "conv", auto_pad="SAME_UPPER", pads=None)


@breaks("conv-transpose-3d")
def _(model: onnx.ModelProto) -> None:
    _as_3d(model, "deconv")


@breaks("auto-pad")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "conv", auto_pad="SAME_LOWER", pads=None)


@breaks("conv-transpose-output-shape")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "deconv", output_shape=[8, 8])


@breaks("empty-input")
def _(model: onnx.ModelProto) -> None:
    node(model, "deconv").input.append("")


@breaks("gemm-alpha-dropped", "gemm-factors")
def _(model: onnx.ModelProto) -> None:
    del node(model, "gemm").input[2]
    set_attribute(model, "gemm", alpha=0.5)


@breaks("gemm-factors")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "gemm", beta=2.0)


@breaks("gemm-trans-a")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "gemm", transA=1)


@breaks("gemm-trans-b")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "gemm", transB=1)
    set_initializer(model, "gemm.w", np.ones((16, 32), np.int8))


@breaks("conv-transpose-dilation")
def _(model: onnx.ModelProto) -> None:
    set_attribute(model, "deconv", dilations=[2, 2])


# -- layers ---------------------------------------------------------------------------------------------------------


@breaks("weight-variable")
def _(model: onnx.ModelProto) -> None:
    model.graph.initializer.remove(initializer(model, "conv.w"))
    model.graph.input.append(helper.make_tensor_value_info("conv.w", TensorProto.INT8, [32, 32, 3, 3]))


@breaks("two-activations")
def _(model: onnx.ModelProto) -> None:
    model.graph.initializer.remove(initializer(model, "matmul.w"))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [16, 32]))
    model.graph.node.insert(0, quant("other.quant", "z", 2.0))
    node(model, "matmul").input[1] = "other.quant.out"


@breaks("weight-type")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.w", np.ones((32, 32, 3, 3), np.float32))


@breaks("weight-type")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.w", np.ones((32, 32, 3, 3), np.uint8))


@breaks("activation-not-quantized")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv").input[0] = "x"


@breaks("matmul-weight-rank")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "matmul.w", np.ones((1, 16, 32), np.int8))


@breaks("weight-moved")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "matmul.w", np.ones((32, 16), np.int8))
    insert_behind(model, "matmul.w", "Transpose", perm=[1, 0])


@breaks("bias-type")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.b", np.ones(32, np.float32))


@breaks("bias-variable")
def _(model: onnx.ModelProto) -> None:
    insert_behind(model, "conv.b", "Abs")


@breaks("bias-shape", "chain")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "matmul.b", np.ones((1, 32), np.int32))


@breaks("bias-shape")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "gemm.b", np.ones((1,), np.int32))


@breaks("bias-shared")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv").input[2] = "matmul.b"


@breaks("channel-scales")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "gemm.dequant.param", deq_scale(16))


@breaks("accumulator")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "matmul.w", np.full((140_000, 2), -128, np.int8))
    set_initializer(model, "matmul.b", np.zeros(2, np.int32))


@breaks("accumulator")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.b", np.full(32, -(2**31), np.int64).astype(np.int32))


@breaks("chain-offset")
def _(model: onnx.ModelProto) -> None:
    insert_behind(model, "conv.quant.out", "Transpose", perm=[0, 1, 3, 2])


@breaks("chain-offset")
def _(model: onnx.ModelProto) -> None:
    insert_behind(model, "conv.out", "Transpose", perm=[0, 1, 3, 2])


@breaks("chain")
def _(model: onnx.ModelProto) -> None:
    insert_behind(model, "deconv.out", "Neg")


@breaks("pad-value")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    insert_behind(model, "conv.quant.out", "Pad", ["pads"])


@breaks("not-dequantized")
def _(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("conv.out", TensorProto.INT32, [1, 32, 8, 8]))


@breaks("not-dequantized")
def _(model: onnx.ModelProto) -> None:
    """A subgraph that kept the name of the int32 sum."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["conv.out"], ["inner"], "inner")],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    set_initializer(model, "condition", np.array(True))
    made = helper.make_node("If", ["condition"], ["s1"], "if", then_branch=inner, else_branch=copy.deepcopy(inner))
    made.attribute[1].g.node[0].name = "inner2"
    made.attribute[1].g.node[0].output[0] = made.attribute[1].g.output[0].name = "inner2"
    node(model, "sigmoid1").CopyFrom(made)


@breaks("not-dequantized", "dequant-without-layer")
def _(model: onnx.ModelProto) -> None:
    node(model, "conv.dequant").input[0] = "conv.quant.out"


@breaks("dequant-without-layer")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "lone.param", deq_scale(1))
    model.graph.node.append(dequant("lone", "x"))


@breaks("int8-reader")
def _(model: onnx.ModelProto) -> None:
    node(model, "sum").input[1] = "skip.quant.out"


@breaks("int8-output")
def _(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("skip.quant.out", TensorProto.INT8, [1, 32]))


def _as_1d(model: onnx.ModelProto, name: str) -> None:
    set_initializer(model, f"{name}.w", np.ones((32, 32, 3), np.int8))
    set_attribute(model, name, kernel_shape=[3], strides=[1], dilations=[1], pads=[1, 1])


@breaks("conv-1d-offset")
def _(model: onnx.ModelProto) -> None:
    _as_1d(model, "conv")


@breaks("conv-1d")
def _(model: onnx.ModelProto) -> None:
    _as_1d(model, "deconv")


@breaks("small-channels", "small-channels-unproven")
def _(model: onnx.ModelProto) -> None:
    set_initializer(model, "conv.w", np.ones((32, 16, 3, 3), np.int8))


@breaks("requant-fusion")
def _(model: onnx.ModelProto) -> None:
    node(model, "sigmoid1").op_type = "Relu"


# -- the tests ------------------------------------------------------------------------------------------------------

CASES = [(rule, index) for rule, functions in BREAKS.items() for index in range(len(functions))]


def checked(model: onnx.ModelProto, soc_version: str | None = None) -> CheckReport:
    path = Path("model.onnx")
    path.write_bytes(model.SerializeToString())
    return check(path, soc_version)


def test_what_atc_accepts_is_guarded_by_rules_with_failing_models() -> None:
    page = (Path(__file__).parent.parent / "docs" / "check.md").read_text(encoding="utf-8")
    table = page.split("| what ATC accepts |")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    named = {accepted: re.findall(r"`([a-z0-9-]+)`", rules) for accepted, rules in rows}
    assert named and all(named.values())
    assert {rule for rules in named.values() for rule in rules} <= BREAKS.keys() | {"file-too-large"}


def test_every_rule_has_a_case() -> None:
    # the one for files beyond 2 GB is test_file_too_large_without_reading_weights
    assert set(BREAKS) | {"file-too-large"} == {rule.id for rule in RULES}
    assert len({rule.id for rule in RULES}) == len(RULES)


def test_good_model_has_no_finding() -> None:
    assert {f.rule for f in checked(good_model()).findings} == ALWAYS
    for product in PRODUCTS:
        report = checked(good_model(), product.soc_versions[0])
        assert report.passed
        assert {f.rule for f in report.findings} == (ALWAYS if product.float16_chain else set())


@pytest.mark.parametrize(("rule", "index"), CASES)
def test_rule_finds_what_breaks_it(rule: str, index: int) -> None:
    broken = good_model()
    BREAKS[rule][index](broken)
    (definition,) = [r for r in RULES if r.id == rule]
    affected = tuple(p.name for p in PRODUCTS if definition.products(p))
    assert affected
    found = [f for f in checked(broken).findings if f.rule == rule]
    assert found
    assert all(f.products == affected and f.detail and f.severity == definition.severity for f in found)
    for product in PRODUCTS:
        report = checked(broken, product.soc_versions[0])
        assert any(f.rule == rule for f in report.findings) == (product.name in affected)
        assert not (report.passed and product.name in affected and definition.severity == ERROR)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_rule_is_documented(rule: Rule) -> None:
    for text in (rule.title, rule.why, rule.source, rule.remedy):
        assert text.strip() == text and text
    assert rule.why.endswith(".") and rule.remedy.endswith(".")


def test_pad_that_fills_with_the_offset_is_accepted() -> None:
    model = good_model()
    set_initializer(model, "pads", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    set_initializer(model, "fill", np.array(3, np.int8))
    insert_behind(model, "conv.quant.out", "Pad", ["pads", "fill"])
    assert {f.rule for f in checked(model).findings} == ALWAYS


def test_chain_ends_at_the_next_quantizer() -> None:
    """The next layer's AscendDequant is not taken for this one's."""
    model = good_model()
    node(model, "sigmoid1").input[0] = "conv.out"
    model.graph.node.remove(node(model, "conv.dequant"))
    found = {(f.rule, f.node) for f in checked(model).findings if f.severity != NOTE}
    assert found == {("not-dequantized", "conv")}


def test_an_empty_input_of_an_ascend_operator_is_counted() -> None:
    model = good_model()
    node(model, "conv.dequant").input.append("")
    (finding,) = [f for f in checked(model).findings if f.rule == "ascend-inputs"]
    assert finding.detail == "AscendDequant has 3 inputs, 1 of them empty, 2 expected"


def test_int4_layer_with_the_vendors_cast_bias() -> None:
    model = good_model()
    set_attribute(model, "conv.quant", dst_type="INT4")
    insert_behind(model, "conv.b", "Cast", to=TensorProto.FLOAT)
    assert {f.rule for f in checked(model).findings} == ALWAYS | {"int4"}
    set_attribute(model, "conv.quant", dst_type="INT8")
    assert "bias-variable" in {f.rule for f in checked(model).findings}


def test_accumulator_adds_each_channel_its_own_bias() -> None:
    """The large bias belongs to the channel of small weights."""
    model = good_model()
    weight = np.full((140_000, 2), 100, np.int8)
    weight[:, 1] = 1
    set_initializer(model, "matmul.w", weight)
    set_initializer(model, "matmul.b", np.array([0, 2_000_000_000], np.int32))
    assert "accumulator" not in {f.rule for f in checked(model).findings}
    set_initializer(model, "matmul.b", np.array([2_000_000_000, 0], np.int32))
    assert "accumulator" in {f.rule for f in checked(model).findings}


def test_accumulator_is_settled_by_the_weights_themselves() -> None:
    """As many rows as in the breaking case, but small numbers."""
    model = good_model()
    set_initializer(model, "matmul.w", np.full((140_000, 2), 3, np.int8))
    set_initializer(model, "matmul.b", np.zeros(2, np.int32))
    assert "accumulator" not in {f.rule for f in checked(model).findings}


def test_constant_node_is_a_constant() -> None:
    model = good_model()
    tensor = initializer(model, "conv.dequant.param")
    value = numpy_helper.to_array(tensor)
    model.graph.initializer.remove(tensor)
    made = helper.make_node("Constant", [], [tensor.name], "constant", value=numpy_helper.from_array(value))
    model.graph.node.insert(0, made)
    assert {f.rule for f in checked(model).findings} == ALWAYS


def _never() -> ir.TensorProtocol:
    raise AssertionError("a weight was read")


def lazy(shape: list[int], dtype: ir.DataType = ir.DataType.INT8) -> ir.LazyTensor:
    return ir.LazyTensor(_never, dtype=dtype, shape=ir.Shape(shape), name="lazy")


def test_file_too_large_without_reading_weights() -> None:
    model = ir.from_proto(good_model())
    for name in ("conv.w", "gemm.w"):
        value = model.graph.initializers[name]
        value.const_value = lazy([int(d) for d in value.shape or ()])
    assert {f.rule for f in check(model).findings} == ALWAYS
    huge = ir.Value(name="huge", const_value=lazy([2**20, 2**11, 2]))
    model.graph.register_initializer(huge)
    (finding,) = [f for f in check(model).findings if f.rule == "file-too-large"]
    assert int(finding.detail.split()[0]) >= 2**32
