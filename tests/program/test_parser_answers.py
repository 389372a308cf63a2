"""Small models on which the open ONNX parser of GE was run: ``check`` says the same.

GE of 2026-08-21 with the public operator plugins, which is ``--cann master``. The parser stopped, went on as the file
means, or went on with something else. Of the last two it says ACCEPTED; which one follows from the graph that it made.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from amct_onnx.graph.atc_operators import is_accepted
from amct_onnx.verbs.check.checker import check
from support.golden_models import DATA

STOPS, AS_MEANT, OTHERWISE = "stops", "goes on as meant", "goes on with something else"
RELEASES_ONLY = {
    "v_const_int4": "constant-int4",
    "v_npu_fastgelu": "domain-newer",
    "v_two_opsets_aionnx": "opset-entries",
    "v_two_opsets_unused": "opset-entries",
}
"""Accepted by the newest parser; the rule by which releases up to 9.1 refuse them."""
ANSWERS: dict[str, tuple[str, str]] = {
    "v_const_f8e4m3fn": (STOPS, "constant-type"),
    "v_const_f8e4m3fnuz": (STOPS, "constant-type"),
    "v_const_f8e5m2fnuz": (STOPS, "constant-type"),
    "v_const_int4": (AS_MEANT, ""),
    # an empty tensor instead of the constant's
    "v_const_sparse": (OTHERWISE, "constant-attribute"),
    "v_const_value_int": (OTHERWISE, "constant-attribute"),
    "v_const_value_string": (OTHERWISE, "constant-attribute"),
    # other axes or another layout
    "v_conv3d_kernel_only": (OTHERWISE, "conv-axes"),
    "v_conv_kernel4": (OTHERWISE, "conv-axes"),
    "v_conv_strides1": (OTHERWISE, "conv-axes"),
    "v_deq_constant": (AS_MEANT, ""),
    "v_deqscale_f16": (AS_MEANT, ""),
    # AscendDequant without its scale
    "v_dequant_1in": (OTHERWISE, "ascend-inputs"),
    "v_dequant_3in": (STOPS, "ascend-inputs"),
    "v_dtype_bf16": (AS_MEANT, ""),
    "v_external_deqscale": (AS_MEANT, ""),
    "v_external_f8": (AS_MEANT, ""),
    "v_groupnorm18": (STOPS, "operator-not-registered"),
    "v_if_passthrough_output": (AS_MEANT, ""),
    "v_input_f8": (STOPS, "input-type"),
    "v_input_notype": (STOPS, "input-type"),
    "v_loop": (STOPS, "operator-not-registered"),
    "v_npu_default": (AS_MEANT, ""),
    "v_npu_fastgelu": (AS_MEANT, ""),
    "v_opset8_relu": (AS_MEANT, ""),
    "v_optional": (STOPS, "operator-not-registered"),
    "v_reducel2_18": (STOPS, "operator-not-registered"),
    "v_relu_2in": (STOPS, "input-count"),
    "v_two_opsets_aionnx": (AS_MEANT, ""),
    "v_two_opsets_unused": (AS_MEANT, ""),
    # the second output, which is read, is lost
    "v_two_outputs": (OTHERWISE, "output-count"),
}
PARSED_FOR = "310"
"""The parser knows no product; of the products, 310 is one that takes what the parser takes, also a float16 scale."""
MODELS = DATA / "atc"


def test_every_model_has_an_answer() -> None:
    assert {p.stem for p in MODELS.glob("*.onnx")} == set(ANSWERS)


@pytest.mark.parametrize("name", ANSWERS)
def test_newest_parser(name: str) -> None:
    answer, rule = ANSWERS[name]
    errors = {f.rule for f in check(MODELS / f"{name}.onnx", PARSED_FOR, "master").of("error")}
    assert errors == (set() if answer == AS_MEANT else {rule})


@pytest.mark.parametrize("name", ANSWERS)
def test_what_releases_refuse_beside(name: str) -> None:
    for cann in (None, "8.5", "9.0", "9.1"):
        errors = {f.rule for f in check(MODELS / f"{name}.onnx", PARSED_FOR, cann).of("error")}
        _, rule = ANSWERS[name]
        assert errors <= {rule, "opset-entries", RELEASES_ONLY.get(name, "")}
        assert bool(errors) == bool(rule or name in RELEASES_ONLY)
        assert name not in RELEASES_ONLY or RELEASES_ONLY[name] in errors


@pytest.mark.parametrize(
    ("name", "refused"), [("v_deqscale_f16", {"310P", "910B", "A3", "950"}), ("v_deq_constant", set())]
)
def test_what_depends_on_the_product(name: str, refused: set[str]) -> None:
    found = check(MODELS / f"{name}.onnx").of("error")
    assert {p for f in found for p in f.products} == refused


def test_operators_of_accepted_models_are_on_the_list() -> None:
    for name, (answer, _) in ANSWERS.items():
        model = onnx.load(str(MODELS / f"{name}.onnx"), load_external_data=False)
        versions = {o.domain.replace("ai.onnx", ""): o.version for o in model.opset_import}
        listed = all(is_accepted(n.domain, n.op_type, versions[n.domain]) for n in model.graph.node)
        assert listed or answer == STOPS, name


def test_path_is_not_needed_for_external_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """External data is looked up beside the model, wherever the command runs."""
    monkeypatch.chdir(tmp_path)
    assert check(MODELS / "v_external_deqscale.onnx", PARSED_FOR).passed
