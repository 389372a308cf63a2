"""Every rule has a model that breaks it, which check finds, and a good model, in which check finds nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.device.chips import CHIPS
from amct_onnx.verbs.check.checker import check
from amct_onnx.verbs.check.report import ERROR, NOTE, CheckReport
from amct_onnx.verbs.check.rule import Rule
from amct_onnx.verbs.check.rules import RULES
from support.broken_deploy_models import BREAKS
from support.deploy_models import good_model, initializer, insert_behind, node, set_attribute, set_initializer

ALWAYS = {"float16-chain"}
"""Holds for every quantized model on all products but 950."""
CASES = [(rule, index) for rule, functions in BREAKS.items() for index in range(len(functions))]


def checked(model: onnx.ModelProto, soc_version: str | None = None) -> CheckReport:
    path = Path("model.onnx")
    path.write_bytes(model.SerializeToString())
    return check(path, soc_version)


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
        assert {f.rule for f in report.findings} == (ALWAYS if product.float16_chain else set())


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
    for product in CHIPS:
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
