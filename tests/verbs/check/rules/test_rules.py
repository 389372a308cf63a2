"""Every rule has a model that breaks it, which check finds, and a good model, in which check finds nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.device.chips import CHIPS, Chip
from amct_onnx.verbs.check.cann_versions import CANN_VERSIONS
from amct_onnx.verbs.check.checker import check
from amct_onnx.verbs.check.report import ERROR, NOTE, CheckReport
from amct_onnx.verbs.check.rule import Rule
from amct_onnx.verbs.check.rules import RULES
from amct_onnx.verbs.check.rules.conv_axes import plugin_reading
from support.broken_deploy_models import BREAKS
from support.deploy_models import (
    good_model,
    initializer,
    insert_behind,
    make_external,
    node,
    set_attribute,
    set_initializer,
)

ALWAYS = {"float16-chain", "layer-undocumented"}
"""Hold for every quantized model: the one on all products but 950, the other on IPV350."""
CASES = [(rule, index) for rule, functions in BREAKS.items() for index in range(len(functions))]
ONE_OF_EACH_RULE = [pytest.param(*case, marks=[pytest.mark.slow] if case[1] else []) for case in CASES]
"""The rule alone says for which products and versions it holds; the other cases are slow tests."""


def checked(model: onnx.ModelProto, soc_version: str | None = None, cann: str | None = None) -> CheckReport:
    path = Path("model.onnx")
    path.write_bytes(model.SerializeToString())
    return check(path, soc_version, cann)


def test_what_atc_accepts_is_guarded_by_rules_with_failing_models() -> None:
    page = (Path(__file__).parents[4] / "docs" / "check.md").read_text(encoding="utf-8")
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
    for product in CHIPS:
        report = checked(good_model(), product.soc_versions[0])
        assert report.passed
        expected = {"float16-chain"} if product.float16_chain else set()
        assert {f.rule for f in report.findings} == expected | ({"layer-undocumented"} & _of(product))


@pytest.mark.parametrize("content", [np.array(["two"], object), np.ones(1, bool), np.ones(1, np.complex64)])
@pytest.mark.parametrize(
    ("name", "rule"), [("conv.w", "weight-type"), ("conv.b", "bias-type"), ("conv.dequant.param", "deq-scale-type")]
)
def test_constant_that_holds_no_numbers_is_a_finding(name: str, rule: str, content: np.ndarray) -> None:
    model = good_model()
    kept = initializer(model, name)
    kept.CopyFrom(numpy_helper.from_array(np.broadcast_to(content, tuple(kept.dims)), name))
    (finding,) = [f for f in checked(model).findings if f.rule == rule]
    assert finding.tensor == name


def _of(product: Chip) -> set[str]:
    """The rules that hold on a product."""
    return {rule.id for rule in RULES if rule.chips(product)}


@pytest.mark.parametrize(("rule", "index"), CASES)
def test_rule_finds_what_breaks_it(rule: str, index: int) -> None:
    broken = good_model()
    BREAKS[rule][index](broken)
    (definition,) = [r for r in RULES if r.id == rule]
    affected = tuple(p.name for p in CHIPS if definition.chips(p))
    assert affected
    found = [f for f in checked(broken).findings if f.rule == rule]
    assert found
    assert all(f.products == affected and f.detail and f.severity == definition.severity for f in found)
    assert all(f.cann == definition.versions for f in found)


@pytest.mark.parametrize(("rule", "index"), ONE_OF_EACH_RULE)
def test_rule_holds_on_its_products_and_versions_alone(rule: str, index: int) -> None:
    broken = good_model()
    BREAKS[rule][index](broken)
    (definition,) = [r for r in RULES if r.id == rule]
    affected = {p.name for p in CHIPS if definition.chips(p)}
    for version in CANN_VERSIONS:
        assert any(f.rule == rule for f in checked(broken, cann=version).findings) == (version in definition.versions)
    holding, others = ([p for p in CHIPS if (p.name in affected) == has] for has in (True, False))
    for product in {*holding[:1], *holding[-1:], *others[:1], *others[-1:]}:
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


def test_symmetric_product_of_two_activations_is_accepted() -> None:
    model = good_model()
    BREAKS["two-activations-no-gain"][0](model)
    assert {f.rule for f in checked(model).findings} == ALWAYS | {"two-activations-no-gain"}
    for soc_version in ("Ascend910B1", "Ascend910_9391", "Ascend310B1"):
        assert {f.rule for f in checked(model, soc_version).findings} == {"float16-chain"}


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_operator_in_front_of_a_second_activation_breaks_the_chain(offset: float) -> None:
    model = good_model()
    BREAKS["two-activations" if offset else "two-activations-no-gain"][0](model)
    insert_behind(model, "other.quant.out", "Transpose")
    found = next(f for f in checked(model).findings if f.rule.startswith("chain"))
    assert found.rule == ("chain-offset" if offset else "chain")
    assert "in front of its second input" in found.detail


def test_sum_of_two_long_activations_may_leave_int32() -> None:
    model = good_model()
    BREAKS["two-activations-no-gain"][0](model)
    z = next(i for i in model.graph.input if i.name == "z").type.tensor_type.shape.dim[0]
    for length, beyond in ((2**17 - 1, False), (2**17, True)):
        z.dim_value = length
        assert ("accumulator" in {f.rule for f in checked(model).findings}) == beyond


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


# -- neighbours of broken models that are accepted --------------------------------------------------------------------


def rules_found(model: onnx.ModelProto, cann: str | None = None) -> set[str]:
    return {f.rule for f in checked(model, cann=cann).findings}


@pytest.mark.parametrize("written", ["", "int8", "INT8 "])
def test_dst_type_that_means_int8(written: str) -> None:
    model = good_model()
    set_attribute(model, "conv.quant", dst_type=written)
    assert rules_found(model) == ALWAYS


def test_deq_scale_behind_operators_of_one_input() -> None:
    model = good_model()
    insert_behind(model, "conv.dequant.param", "Identity")
    assert rules_found(model) == ALWAYS
    insert_behind(model, "conv.dequant.param.Identity", "Flatten", axis=0)
    assert "deq-scale-variable" not in rules_found(model)


def test_bias_of_two_layers() -> None:
    model = good_model()
    node(model, "conv").input[2] = "matmul.b"
    model.graph.initializer.remove(initializer(model, "conv.b"))
    assert rules_found(model) == ALWAYS


def test_external_weights_of_int8_layers() -> None:
    """They become constants before the quantization passes run."""
    model = good_model()
    tensor = initializer(model, "conv.w")
    Path("w.bin").write_bytes(numpy_helper.to_array(tensor).tobytes())
    make_external(model, "conv.w", "w.bin")
    assert rules_found(model) == ALWAYS


def test_npu_operators_of_the_default_domain() -> None:
    model = good_model()
    node(model, "sigmoid1").op_type = "NPUFastGelu"
    assert rules_found(model) == ALWAYS


def test_npu_domain_is_taken_by_the_newest_compiler_alone() -> None:
    model = good_model()
    node(model, "sigmoid1").op_type, node(model, "sigmoid1").domain = "NPUFastGelu", "npu"
    model.opset_import.append(helper.make_opsetid("npu", 1))
    assert rules_found(model, "master") == ALWAYS
    assert rules_found(model, "9.1") == ALWAYS | {"domain-newer", "opset-entries"}


def _with_branches(then_reads: str, nested: str = "") -> onnx.ModelProto:
    """sigmoid1 replaced by an If: one branch hands an outer tensor through, the other one reads ``then_reads``."""
    model = good_model()
    model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    outer = helper.make_tensor_value_info("conv.dequant.out", TensorProto.FLOAT, None)
    out = helper.make_tensor_value_info("read", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Identity", [then_reads], ["read"], "reads")]
    if nested:
        inner = [
            helper.make_graph(
                [helper.make_node("Identity", [nested], [f"{side}.r"], f"{side}.n")],
                side,
                [],
                [helper.make_tensor_value_info(f"{side}.r", TensorProto.FLOAT, None)],
            )
            for side in ("a", "b")
        ]
        nodes.append(
            helper.make_node("If", ["condition"], ["deep"], "inner", then_branch=inner[0], else_branch=inner[1])
        )
    made = helper.make_node(
        "If",
        ["condition"],
        ["s1"],
        "if",
        then_branch=helper.make_graph(nodes, "then", [], [out]),
        else_branch=helper.make_graph([], "else", [], [outer]),
    )
    node(model, "sigmoid1").CopyFrom(made)
    return model


def test_branch_output_that_the_other_branch_reads() -> None:
    assert not {"branch-output-captured", "output-not-produced"} & rules_found(_with_branches("conv.dequant.out"))
    assert "branch-output-captured" in rules_found(_with_branches("x"))


def test_nested_if_that_reads_what_its_branch_reads() -> None:
    assert "nested-capture" not in rules_found(_with_branches("conv.dequant.out", "conv.dequant.out"))
    assert "nested-capture" not in rules_found(_with_branches("conv.dequant.out", "read"))
    assert "nested-capture" in rules_found(_with_branches("conv.dequant.out", "x"))


def test_output_that_depends_on_an_input_through_a_branch() -> None:
    """Constants alone in the branches; the condition is an input."""
    model = good_model()
    model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    sides = [
        helper.make_graph(
            [helper.make_node("Identity", ["matmul.w"], [side], f"{side}.n")],
            side,
            [],
            [helper.make_tensor_value_info(side, TensorProto.INT8, None)],
        )
        for side in ("a", "b")
    ]
    model.graph.node.append(
        helper.make_node("If", ["condition"], ["chosen"], "if", then_branch=sides[0], else_branch=sides[1])
    )
    model.graph.output.append(helper.make_tensor_value_info("chosen", TensorProto.INT8, None))
    assert "constant-output" not in rules_found(model)


def test_random_output_is_not_constant() -> None:
    model = good_model()
    model.graph.node.append(helper.make_node("RandomNormal", [], ["noise"], "noise", shape=[2]))
    model.graph.output.append(helper.make_tensor_value_info("noise", TensorProto.FLOAT, [2]))
    assert "constant-output" not in rules_found(model)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT8E4M3FN, TensorProto.BFLOAT16, TensorProto.STRING])
def test_input_types_of_the_parsers_table(kind: int) -> None:
    model = good_model()
    model.graph.input.append(helper.make_tensor_value_info("extra", kind, [2]))
    assert "input-type" not in rules_found(model)


def test_int4_is_taken_by_the_newest_compiler() -> None:
    model = good_model()
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.INT4, [2]))
    assert "input-int4" in rules_found(model, "9.1")
    assert not {"input-int4", "input-type"} & rules_found(model, "master")


def test_constant_of_no_elements_needs_no_data() -> None:
    model = good_model()
    model.graph.initializer.append(helper.make_tensor("empty", TensorProto.FLOAT, [0], []))
    assert rules_found(model) == ALWAYS


def test_opset_entries_between_which_no_operator_differs() -> None:
    model = good_model()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 13))
    assert rules_found(model, "master") == ALWAYS


@pytest.mark.parametrize(
    ("attributes", "reading"),
    [
        ({"kernel_shape": [3, 3]}, (2, "NCHW")),
        ({"strides": [1], "kernel_shape": [3, 3]}, (2, "NCHW")),
        ({"kernel_shape": [3, 3], "strides": [1]}, (1, "NCHW")),
        ({"kernel_shape": [3]}, (1, "NCHW")),
        ({"strides": [2]}, (1, "NCHW")),
        ({"pads": [1, 1]}, (1, "NCHW")),
        ({"pads": [1, 1, 1, 1]}, (2, "NCHW")),
        ({"pads": [1] * 6}, (3, "NCDHW")),
        ({"dilations": [1, 1, 1]}, (3, "NCDHW")),
        ({"kernel_shape": [1, 3, 3]}, (3, "NCHW")),
        ({"kernel_shape": [1, 3, 3], "strides": [1, 1, 1]}, (3, "NCDHW")),
        ({"kernel_shape": [3, 3], "pads": [1] * 6}, (2, "NCDHW")),
    ],
)
def test_axes_that_the_plugin_counts(attributes: dict[str, list[int]], reading: tuple[int, str]) -> None:
    made = helper.make_node("Conv", ["x", "w"], ["y"])
    made.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    assert plugin_reading(ir.from_proto(made)) == reading


@pytest.mark.parametrize("dilations", [[1, 2, 2], [1, 1, 1]])
def test_int8_conv_dilated_in_its_plane(dilations: list[int]) -> None:
    model = good_model()
    set_initializer(model, "conv.w", np.ones((32, 32, 1, 3, 3), np.int8))
    ones = [1, 1, 1]
    set_attribute(model, "conv", kernel_shape=[1, 3, 3], strides=ones, dilations=dilations, pads=[0, 1, 1, 0, 1, 1])
    assert not {"conv-3d-dilation", "conv-axes"} & rules_found(model)
