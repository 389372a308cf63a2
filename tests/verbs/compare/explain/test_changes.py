"""Both models are held against the conversion made once more: every change is named, a healthy file has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import ModelFileError
from amct_onnx.verbs.compare.explain.beside_ledger import Located, examine_files
from amct_onnx.verbs.compare.explain.change import Change
from amct_onnx.verbs.compare.explain.changes import changes
from amct_onnx.verbs.compare.explain.name_changes import with_changes
from amct_onnx.verbs.compare.report import Divergence
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support.comparison_cases import DIGITS, Case, as_of_other_code, converted
from support.deploy_models import initializer, node, set_initializer
from support.fault_campaign import CAMPAIGN, Patient, campaign
from support.older_libraries import needs_checked_sizes

RELU, ADD_RELU = "/c1.0/Relu", "/relu/Relu"


def remove(path: Path, name: str) -> None:
    """A node of the model goes; what read it reads its input."""
    model = onnx.load(path)
    gone = node(model, name)
    for other in model.graph.node:
        for index, read in enumerate(other.input):
            if read == gone.output[0]:
                other.input[index] = gone.input[0]
    model.graph.node.remove(gone)
    onnx.save(model, path)


def said(case: Case, model: str) -> Divergence:
    """The fault of one model."""
    report = case.compare(devices=("reference",))
    assert report.verdict.level == "diverges", report.verdict
    (found,) = (d for d in report.divergences if d.is_fault)  # the other model is healthy
    assert found.model == model
    return found


@pytest.mark.parametrize(
    "name",
    [DIGITS, "torchfq_digitsnet_i8sym_fp16_dynamo20", pytest.param("brevitas_mbv3_qonnx", marks=pytest.mark.slow)],
)
def test_healthy_conversion_has_no_change(name: str, tmp_path: Path) -> None:
    case = converted(name, tmp_path, 2)
    found = examine_files(case.source, read_ledger(case.prefix))
    assert not found.changed and not found.not_judged


def test_files_of_other_code_are_no_all_clear(tmp_path: Path) -> None:
    case = converted(DIGITS, tmp_path, 2)
    as_of_other_code(read_ledger(case.prefix).path)
    found = case.compare().verdict
    assert found.level == "incomplete"
    assert found.brief[0].startswith("Not judged: whether the files are what the conversion writes: they were written")


@pytest.mark.parametrize(("model", "key"), [("deploy", "deploy@reference"), ("fake_quant", "fake-quant")])
def test_tensor_of_another_size_is_a_fault_by_the_numbers_alone(model: str, key: str, digits: Case) -> None:
    """A pooling that is gone leaves the outputs' shapes: the layers behind it have no counterpart."""
    remove(getattr(digits, model), "/mp/MaxPool")
    as_of_other_code(read_ledger(digits.prefix).path)
    found = said(digits, key)
    assert (found.cause, found.layer, found.place) == ("fault-between-layers", "/c2.0/Conv", "before")
    assert f"has shape [32, 32, 8, 8] in {key}, [32, 32, 4, 4] in the source." in found.text


@pytest.mark.parametrize(("model", "key"), [("deploy", "deploy@reference"), ("fake_quant", "fake-quant")])
@pytest.mark.parametrize("name", [RELU, ADD_RELU])
def test_removed_activation_is_named_first(digits: Case, model: str, key: str, name: str) -> None:
    remove(getattr(digits, model), name)
    found = said(digits, key)
    assert found.node == name and found.cause == "node-missing" and found.place == "before"
    assert found.text.startswith(f"The source has Relu '{name}' here, the {key.partition('@')[0]} model has nothing.")


def test_numbers_of_one_damage_do_not_explain_another(digits: Case) -> None:
    """No sample needs this Relu; the error of the last layer is not its."""
    remove(digits.deploy, RELU)
    model = onnx.load(digits.deploy)
    name = node(model, digits.layers[-1]).input[1]
    weights = numpy_helper.to_array(initializer(model, name)).copy()
    weights.reshape(-1)[0] ^= 64
    set_initializer(model, name, weights)
    onnx.save(model, digits.deploy)
    found = said(digits, "deploy@reference")
    assert (found.node, found.cause, found.layer) == (RELU, "node-missing", digits.layers[1])
    first, second = found.text.split(" Besides: ")
    assert first.endswith("has nothing. With these data the numbers alone do not tell it from quantization.")
    assert second.startswith(f"The weights of Gemm '{digits.layers[-1]}': 1 element is not what the conversion writes")
    assert f"'{digits.layers[-1]}' of deploy@reference differs by " in second and RELU not in second


def test_flipped_sign_is_called_a_sign(digits: Case) -> None:
    model = onnx.load(digits.deploy)
    name = node(model, digits.layers[2]).input[1]
    weights = numpy_helper.to_array(initializer(model, name))
    set_initializer(model, name, np.clip(-weights.astype(int), -128, 127).astype(np.int8))
    onnx.save(model, digits.deploy)
    found = said(digits, "deploy@reference")
    assert (found.node, found.cause) == (digits.layers[2], "sign-fault") and "the other sign" in found.text


def test_changed_attribute_is_named(digits: Case) -> None:
    model = onnx.load(digits.deploy)
    pool = node(model, "/mp/MaxPool")
    next(a for a in pool.attribute if a.name == "kernel_shape").ints[0] = 1
    onnx.save(model, digits.deploy)
    found = said(digits, "deploy@reference")
    assert found.node == "/mp/MaxPool" and found.cause == "attribute-changed"
    assert "kernel_shape" in found.text and "the conversion writes" in found.text


def test_file_that_no_session_opens_names_the_change(digits: Case) -> None:
    remove(digits.deploy, f"{digits.layers[0]}.dequant")
    found = said(digits, "deploy@reference")
    assert found.cause == "node-missing" and found.node == "/c1.0/Conv.dequant" and "It cannot be run: " in found.text


def test_tensors_that_can_no_longer_be_shown_leave_the_outputs(tmp_path: Path) -> None:
    """Without its AscendAntiQuant a tensor holds an average of integers, which no output of a session can be."""
    case = converted("ort_mbv3_qdq_dedicated", tmp_path, 2)
    remove(case.deploy, "/Add_output_0_DequantizeLinear.anti_quant")
    found = said(case, "deploy@reference")
    assert found.node == "/Add_output_0_DequantizeLinear.anti_quant" and found.cause == "node-missing"


def rename(path: Path, kind: str) -> str:
    """The only input or output of a model gets another name; the old one."""
    model = onnx.load(path)
    (declared,) = getattr(model.graph, kind)
    old, declared.name = declared.name, "renamed"
    for each in model.graph.node:
        for names in (each.input, each.output):
            names[:] = ["renamed" if n == old else n for n in names]
    onnx.save(model, path)
    return str(old)


@pytest.mark.parametrize("name", ["deploy", "fake_quant"])
def test_renamed_output_is_a_fault(name: str, digits: Case) -> None:
    """No number changes, but a program that reads it by the source's name fails."""
    old = rename(getattr(digits, name), "output")
    found = said(digits, "fake-quant" if name == "fake_quant" else "deploy@reference")
    assert found.cause == "declaration-changed" and f"output 'renamed' is '{old}' in the source" in found.text


@pytest.mark.parametrize("name", ["deploy", "fake_quant"])
def test_renamed_input_is_named(name: str, digits: Case) -> None:
    old = rename(getattr(digits, name), "input")
    found = said(digits, "fake-quant" if name == "fake_quant" else "deploy@reference")
    assert found.cause == "declaration-changed" and f"input 'renamed' is '{old}' in the source" in found.text


def test_other_versions_of_the_operators_are_a_fault(digits: Case) -> None:
    model = onnx.load(digits.deploy)
    model.opset_import[0].version -= 1
    onnx.save(model, digits.deploy)
    found = said(digits, "deploy@reference")
    assert found.cause == "declaration-changed" and "declares the operators of ai.onnx" in found.text


@pytest.mark.parametrize("other", ["torchfx_digitsae_i8sym_op13", "torchfx_digitsnet_u8_bnqat_op13"])
def test_file_of_another_model_is_said(other: str, digits: Case, tmp_path: Path) -> None:
    """Of another architecture, and of the same one after other epochs."""
    digits.deploy.write_bytes(converted(other, tmp_path / other, 2).deploy.read_bytes())
    found = said(digits, "deploy@reference")
    assert found.cause == "other-model" and "deploy_model.onnx: was not made from this model" in found.text


def test_another_version_of_the_source_is_refused(digits: Case, tmp_path: Path) -> None:
    model = onnx.load(digits.source)
    weight = next(t for t in model.graph.initializer if numpy_helper.to_array(t).ndim == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    other = tmp_path / "next_epoch.onnx"
    onnx.save(model, other)
    with pytest.raises(ModelFileError, match="these files were not made from this model"):
        amct_onnx.compare(other, digits.prefix, digits.data)


def test_same_source_stored_otherwise_is_the_same(digits: Case, tmp_path: Path) -> None:
    other = tmp_path / "external.onnx"
    model = onnx.load(digits.source)
    model.doc_string = "stored once more"
    onnx.save(model, other, save_as_external_data=True, size_threshold=0)
    assert not examine_files(other, read_ledger(digits.prefix)).changed


def test_command_exits_with_1_and_the_verdict_stands_last(digits: Case, capsys: pytest.CaptureFixture[str]) -> None:
    remove(digits.deploy, ADD_RELU)
    assert main(digits.arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("deploy@a2 goes wrong"))
    assert (
        len(lines) - start <= 6 and lines[start + 1].startswith("Where: ") and lines[start + 3].startswith("What to do")
    )
    assert "Pinned in every session" not in "\n".join(lines) and "Nothing is wrong" not in "\n".join(lines)


@pytest.mark.parametrize(
    "name", [DIGITS, pytest.param("torchfunc_digitsae_i8sym_ctaxis1_op13", marks=pytest.mark.slow)]
)
def test_random_damages_are_said_and_named(name: str, tmp_path: Path) -> None:
    if name != DIGITS:  # a Round of another tensor is among the damages
        needs_checked_sizes()
    found = campaign(Patient(name, tmp_path), 3, np.random.default_rng(5))
    assert sum(found.counted.values()) == 3 and not found.misses


@pytest.mark.slow
@pytest.mark.parametrize("name", CAMPAIGN)
def test_many_random_damages_are_said_and_named(name: str, tmp_path: Path) -> None:
    patient = Patient(name, tmp_path)
    assert patient.level() in ("equal", "noise")
    found = campaign(patient, 20, np.random.default_rng(6))
    assert found.counted and not found.misses


def test_attribute_that_one_model_lacks_is_not_called_nothing() -> None:
    def quantizer(**attributes: float) -> ir.Model:
        nodes = [helper.make_node("AscendQuant", ["x"], ["y"], "quant", offset=0.0, **attributes)]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
        return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]))

    with_scale, without = quantizer(scale=2.0), quantizer()
    (lost,) = changes(with_scale, without, with_scale, "deploy")
    assert lost.text == "AscendQuant 'quant' has no scale; the conversion writes 2."
    (more,) = changes(without, with_scale, with_scale, "deploy")
    assert more.text == "AscendQuant 'quant' has scale 2; the conversion writes none."


def test_change_without_a_node_is_one_of_the_model() -> None:
    changed = (
        Change("conv", "Conv", "weight-fault", "One."),
        Change("", "", "declaration-changed", "Two."),
    )
    told = with_changes("fake-quant", None, [Located(c, 0, "conv", "at") for c in changed], judged=False)
    assert told is not None and told.text.endswith("are also the model as a whole (declaration-changed).")
