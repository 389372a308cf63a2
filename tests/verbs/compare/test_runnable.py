"""A model of the conversion that cannot be opened or run is a finding that names what was changed in it, no error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.cli import main
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.explain import cut_source
from support.comparison_cases import SMALL, Case, converted
from support.deploy_models import initializer, set_attribute, set_initializer

FAKE, DEPLOY = "fake_quant", "deploy"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return converted(SMALL, tmp_path_factory.mktemp("converted"))


def first(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == op_type)


def floor(model: onnx.ModelProto) -> str:
    node = first(model, "AscendQuant")
    set_attribute(model, node.name, round_mode="Floor")
    return str(node.name)


def negative(model: onnx.ModelProto) -> str:
    node = first(model, "AscendQuant")
    next(a for a in node.attribute if a.name == "scale").f *= -1
    return str(node.name)


def no_number(model: onnx.ModelProto) -> str:
    node = first(model, "AscendQuant")
    next(a for a in node.attribute if a.name == "offset").f = float("nan")
    return str(node.name)


def unsigned(model: onnx.ModelProto) -> str:
    node = next(n for n in model.graph.node if n.op_type in ("Conv", "MatMul", "Gemm"))
    weight = numpy_helper.to_array(initializer(model, node.input[1]))
    set_initializer(model, node.input[1], (weight.astype(np.int32) + 128).astype(np.uint8))
    return str(node.name)


def more_outputs(model: onnx.ModelProto) -> str:
    node = model.graph.node[-2]
    model.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
    return str(node.name)


def unknown_operator(model: onnx.ModelProto) -> str:
    model.graph.node[-1].op_type = "Nonsense"
    return str(model.graph.node[-1].name)


def other_type(model: onnx.ModelProto) -> str:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return str(model.graph.output[0].name)


def wider_input(model: onnx.ModelProto) -> str:
    model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value += 1
    return reader(model)


def flatter_input(model: onnx.ModelProto) -> str:
    del model.graph.input[0].type.tensor_type.shape.dim[-1]
    return reader(model)


def untyped_input(model: onnx.ModelProto) -> str:
    model.graph.input[0].type.ClearField("tensor_type")
    return reader(model)


def reader(model: onnx.ModelProto) -> str:
    return next(str(n.name) for n in model.graph.node if model.graph.input[0].name in n.input)


@pytest.mark.parametrize(
    ("model", "damage", "cause"),
    [
        (DEPLOY, wider_input, "declaration-changed"),
        (FAKE, flatter_input, "declaration-changed"),
        (DEPLOY, untyped_input, "type-changed"),
        (FAKE, untyped_input, "type-changed"),
        (DEPLOY, floor, "attribute-changed"),
        (DEPLOY, negative, "sign-fault"),
        (DEPLOY, no_number, "zero-point-fault"),
        (DEPLOY, unsigned, "type-changed"),
        (DEPLOY, more_outputs, "declaration-changed"),
        (FAKE, more_outputs, "declaration-changed"),
        (DEPLOY, unknown_operator, "node-replaced"),
        (FAKE, unknown_operator, "node-replaced"),
        (FAKE, other_type, "type-changed"),
    ],
)
def test_model_that_cannot_be_run_is_a_finding(
    model: str, damage: Callable[[onnx.ModelProto], str], cause: str, case: Case
) -> None:
    path: Path = getattr(case, model)
    kept = path.read_bytes()
    proto = onnx.load_model_from_string(kept)
    node = damage(proto)
    path.write_bytes(proto.SerializeToString())
    try:
        found = case.compare()
    finally:
        path.write_bytes(kept)
    key = "fake-quant" if model == FAKE else "deploy@a2"
    assert found.verdict.level == "diverges"
    (fault,) = found.divergences
    assert (fault.model, fault.cause, fault.node) == (key, cause, node) and "It cannot be run: " in fault.text
    assert [m.key for m in found.models] == ["source", "fake-quant", "deploy@a2"]
    (left,) = [m for m in found.models if m.key == key]
    assert left.notes[0].startswith("Not run: ")
    assert {d.model for o in found.outputs for d in o.differences} == {"fake-quant", "deploy@a2"} - {key}


def local_function(model: onnx.ModelProto) -> str:
    """Runs from its file, and not with the tensors of its layers shown."""
    node = first(model, "Relu")
    opset = helper.make_opsetid("", 13)
    body = [helper.make_node("Abs", ["a"], ["y"], "inner")]
    model.functions.append(helper.make_function("local", "Relu", ["a"], ["y"], body, [opset]))
    node.domain = "local"
    model.opset_import.append(helper.make_opsetid("local", 1))
    return str(node.name)


def test_model_that_runs_by_itself_alone_is_a_finding(case: Case) -> None:
    kept = case.deploy.read_bytes()
    proto = onnx.load_model_from_string(kept)
    node = local_function(proto)
    case.deploy.write_bytes(proto.SerializeToString())
    try:
        found = case.compare()
    finally:
        case.deploy.write_bytes(kept)
    (fault,) = found.divergences
    assert fault.model == "deploy@a2" and f"'{node}'" in fault.text


def other_size(model: onnx.ModelProto) -> str:
    name = model.graph.output[0].name
    last = next(n for n in model.graph.node if name in n.output)
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Concat", ["before", "before"], [name], "twice", axis=-1))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return "twice"


def test_output_of_another_size_is_a_fault_also_of_files_of_other_code(case: Case) -> None:
    ledger = Path(f"{case.prefix}_quant.json")
    kept = case.deploy.read_bytes(), ledger.read_bytes()
    proto = onnx.load_model_from_string(kept[0])
    other_size(proto)
    case.deploy.write_bytes(proto.SerializeToString())
    content = json.loads(kept[1])
    content["origin"]["code"] = "other"
    ledger.write_text(json.dumps(content), encoding="utf-8")
    try:
        found = case.compare()
    finally:
        case.deploy.write_bytes(kept[0])
        ledger.write_bytes(kept[1])
    (fault,) = [d for d in found.divergences if d.is_fault]
    assert (found.verdict.level, fault.model, fault.place) == ("diverges", "deploy@a2", "behind")
    assert "elements in the deploy model, " in fault.text


@pytest.mark.parametrize("both", [False, True])
def test_file_that_is_no_model_is_a_finding(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, both: bool
) -> None:
    kept = [p.read_bytes() for p in (case.fake_quant, case.deploy)]
    case.deploy.write_bytes(kept[1][: len(kept[1]) // 2])
    if both:
        case.fake_quant.write_bytes(b"no model")
    page = tmp_path / "report.html"
    try:
        assert main([*case.arguments, "--report", str(page)]) == 1
    finally:
        case.fake_quant.write_bytes(kept[0])
        case.deploy.write_bytes(kept[1])
    said = " ".join(capsys.readouterr().out.split())
    first = "fake-quant is not a readable model; deploy@a2 goes wrong as well." if both else "deploy@a2 is not a"
    assert first in said and "Where: the whole file" in said and "deploy_model.onnx" in said
    assert "file-unreadable" in page.read_text(encoding="utf-8")


def test_data_that_do_not_fit_are_an_error_also_beside_a_damaged_model(case: Case, tmp_path: Path) -> None:
    kept = case.deploy.read_bytes()
    case.deploy.write_bytes(b"no model")
    data = tmp_path / "data.npz"
    with np.load(case.data) as archive:
        np.savez(data, **{name: values[:, :1, :1] for name, values in archive.items()})
    try:
        with pytest.raises(DataError):
            Case(case.source, case.prefix, data, case.labels).compare()
    finally:
        case.deploy.write_bytes(kept)


def test_batch_that_a_model_fixes_is_named_with_the_model(case: Case) -> None:
    kept = case.deploy.read_bytes()
    proto = onnx.load_model_from_string(kept)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    case.deploy.write_bytes(proto.SerializeToString())
    try:
        with pytest.raises(DataError, match=r"^The source runs batch 0, deploy@a2 does not .* batch_size that this"):
            case.compare()
    finally:
        case.deploy.write_bytes(kept)


def test_source_that_does_not_run_in_pieces_is_not_judged(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*given: object) -> None:
        raise RuntimeError("Subgraph must have the shape set")

    monkeypatch.setattr(cut_source, "run_named", refuses)
    found = case.compare()
    assert found.verdict.level == "incomplete" and not found.divergences
    assert len(found.not_judged) == 2 and all("piece by piece: " in t and "Subgraph" in t for t in found.not_judged)


def test_output_type_that_only_one_device_runs(tmp_path: Path) -> None:
    case = converted("pt2e_digitsnet_x86_dynamo18", tmp_path, samples=4)
    proto = onnx.load(case.deploy)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(proto, case.deploy)
    (fault,) = [d for d in case.compare().divergences if d.is_fault]
    assert (fault.model, fault.cause, fault.node) == ("deploy@a2", "type-changed", proto.graph.output[0].name)
