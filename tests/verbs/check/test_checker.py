"""check on the vendor's own deploy models, on our conversions, and on models that are odd or hostile."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import amct_onnx
from amct_onnx import cli
from amct_onnx.device.chips import CHIPS, find_chip
from amct_onnx.errors import ModelFileError, ModelNotFoundError, SettingError
from amct_onnx.verbs.check.document import with_tables
from amct_onnx.verbs.check.report import ERROR, NOTE, WARNING
from support.deploy_models import good_model, make_external, node, set_attribute
from support.golden_models import GOLDENS, MODEL_CASES, MODELS
from support.typed_command import in_process

GOLDEN_DEPLOYS = sorted(GOLDENS.glob("**/m_deploy_model.onnx"))
PAGE = Path(__file__).parents[3] / "docs" / "check.md"
SMALL = {"small-channels": WARNING, "small-channels-unproven": NOTE}
KNOWN = {
    "float16-chain": NOTE,
    "deq-scale-square-root": NOTE,
    "requant-fusion": NOTE,
    "dynamic-input": NOTE,
    "layer-undocumented": NOTE,
    "add-undocumented": NOTE,
    **SMALL,
}
"""True of many models: computed in float16, scales below 2^-14, fused chains, small channels, open sizes, and layers
that one product's documentation does not name."""
TRUE_OF = {
    "conv1d_bias": {"conv-1d": NOTE},
    "conv3d_bias": {"conv-3d": WARNING},
    "linear3d": {"weight-moved": WARNING},
}
"""What is true of single reference cases: their axes, a Transpose in front of a weight."""


@pytest.mark.parametrize("path", GOLDEN_DEPLOYS, ids=lambda p: p.parent.name)
@pytest.mark.parametrize("product", CHIPS, ids=lambda p: p.name)
def test_vendor_models_pass_or_have_true_findings(path: Path, product: object) -> None:
    (known,) = [p for p in CHIPS if p is product]
    report = amct_onnx.check(path, known.soc_versions[0])
    assert report.passed
    case = path.parent.name
    assert {f.rule: f.severity for f in report.findings}.items() <= (KNOWN | TRUE_OF.get(case, {})).items()
    expected = set(TRUE_OF.get(case, {})) - ({"conv-3d"} if known.conv3d else set())
    assert expected <= {f.rule for f in report.findings}
    small = {f.node for f in report.findings if f.rule in SMALL}
    model = onnx.load(str(path), load_external_data=False)
    dims = {t.name: list(t.dims) for t in model.graph.initializer}
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    groups = {n.name: next((a.i for a in n.attribute if a.name == "group"), 1) for n in convs}
    assert small == {n.name for n in convs if dims[n.input[1]][1] * groups[n.name] <= 16}


@pytest.mark.parametrize("name", MODEL_CASES)
def test_our_conversions_pass(name: str, tmp_path: Path) -> None:
    converted = amct_onnx.convert_qat_model(MODELS / name / "model.onnx", tmp_path / "m")
    report = amct_onnx.check(converted.deploy_model)
    assert report.passed
    assert {f.rule: f.severity for f in report.findings}.items() <= KNOWN.items(), report.to_dict()


def test_qat_model_itself_is_no_deploy_model() -> None:
    report = amct_onnx.check(MODELS / MODEL_CASES[0] / "model.onnx")
    assert "leftover-quantizer" in {f.rule for f in report.of(ERROR)}


# -- products -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("soc_version", "name"),
    [(s, p.name) for p in CHIPS for s in p.soc_versions]
    + [
        ("Ascend910B", "910"),
        ("ascend910b4", "910B"),
        ("Ascend910_9362", "A3"),
        ("Ascend310P", "310P"),
        ("Ascend910_9599", "950"),
        ("Ascend950", "950"),
    ],
)
def test_soc_versions(soc_version: str, name: str) -> None:
    assert find_chip(soc_version).name == name
    others = [p for p in CHIPS if p.name != name]
    assert not any(s.lower() == soc_version.lower() for p in others for s in p.soc_versions)


@pytest.mark.parametrize("wrong", ["", "Ascend", "Ascend910D", "Ascend310P3 ", "Ascend410", "Ascend310P9", "reference"])
def test_unknown_soc_version(wrong: str) -> None:
    with pytest.raises(SettingError, match="Unknown chip") as error:
        amct_onnx.check(GOLDEN_DEPLOYS[0], wrong)
    assert re.search(r"the nearest are .*(310P|910)|known are 310, ", str(error.value))


# -- odd and hostile models -----------------------------------------------------------------------------------------


def test_findings_inside_subgraphs() -> None:
    model = good_model()
    inner = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["s1", "one"], ["q"], "deep")],
        "then",
        [],
        [helper.make_tensor_value_info("q", TensorProto.UINT8, None)],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    condition = helper.make_node("Constant", [], ["condition"], "c", value=helper.make_tensor("", 9, [], [1]))
    model.graph.node.append(condition)
    model.graph.node.append(helper.make_node("If", ["condition"], ["never"], "if", then_branch=inner))
    Path("m.onnx").write_bytes(model.SerializeToString())
    assert ("leftover-quantizer", "deep") in {(f.rule, f.node) for f in amct_onnx.check("m.onnx").findings}


def test_long_chain_of_moves_is_quick() -> None:
    """20,000 nodes in a row, read by as many: the search for neighbours must not become quadratic."""
    model = good_model()
    previous = "conv.quant.out"
    for index in range(20_000):
        model.graph.node.append(helper.make_node("Identity", [previous], [f"i{index}"], f"i{index}"))
        previous = f"i{index}"
    Path("m.onnx").write_bytes(model.SerializeToString())
    assert amct_onnx.check("m.onnx").passed


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_as_external_data_does_not_block() -> None:
    model = good_model()
    make_external(model, "conv.dequant.param", "pipe")
    os.mkfifo("pipe")
    Path("m.onnx").write_bytes(model.SerializeToString())
    assert "external-missing" in {f.rule for f in amct_onnx.check("m.onnx").findings}


def test_name_of_a_data_file_that_is_not_utf8() -> None:
    """Found by fuzzing."""
    model = good_model()
    make_external(model, "conv.dequant.param", "MARK")
    Path("m.onnx").write_bytes(model.SerializeToString().replace(b"MARK", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(ModelFileError, match="UTF-8"):
        amct_onnx.check("m.onnx")


@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_tensor_without_a_type(place: str) -> None:
    """Found by fuzzing; one of texts is no problem."""
    model = good_model()
    odd = helper.make_tensor("odd", onnx.TensorProto.STRING, [1], [b"text"])
    if place == "initializer":
        model.graph.initializer.append(odd)
    else:
        model.graph.node.append(helper.make_node("Constant", [], ["odd"], "odd.node", value=odd))
    Path("m.onnx").write_bytes(model.SerializeToString())
    amct_onnx.check("m.onnx")
    held = model.graph.initializer[-1] if place == "initializer" else model.graph.node[-1].attribute[0].t
    held.data_type = onnx.TensorProto.UNDEFINED
    Path("m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="'odd' has no element type"):
        amct_onnx.check("m.onnx")
    held.data_type = 99
    Path("m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="'odd' has no element type|99 is not a valid DataType"):
        amct_onnx.check("m.onnx")


@pytest.mark.parametrize("content", [b"", b"no onnx file", GOLDEN_DEPLOYS[0].read_bytes()[:300]])
def test_unreadable_file(content: bytes) -> None:
    Path("m.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"m\.onnx"):
        amct_onnx.check("m.onnx")


def test_missing_file_and_folder() -> None:
    with pytest.raises(ModelNotFoundError):
        amct_onnx.check("none.onnx")
    with pytest.raises(ModelFileError):
        amct_onnx.check(".")


def test_tensor_made_twice_is_no_onnx_model() -> None:
    model = good_model()
    node(model, "sigmoid2").output[0] = "s1"
    Path("m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="s1"):
        amct_onnx.check("m.onnx")


def mutate(model: onnx.ModelProto, source: random.Random) -> None:
    """One random change of the kind that exporters and editors make."""
    nodes, tensors = model.graph.node, model.graph.initializer
    target = source.choice(nodes)
    kind = source.randrange(12)
    if kind == 0:
        target.name = source.choice(["", source.choice(nodes).name])
    elif kind == 1:
        target.op_type = source.choice([*{n.op_type for n in nodes}, "Pad", "Split", "Concat", "If", "Odd", ""])
    elif kind == 2 and target.attribute:
        target.attribute.remove(source.choice(target.attribute))
    elif kind == 3 and target.attribute:
        changed = source.choice(target.attribute)
        new = helper.make_attribute(changed.name, source.choice([0, -7, 1.5, "x", [1, 2, 3], [0.5]]))
        changed.CopyFrom(new)
    elif kind == 4 and target.input:
        del target.input[source.randrange(len(target.input)) :]
    elif kind == 5 and target.input:
        names = [n.output[0] for n in nodes if n.output] + [t.name for t in tensors] + ["", "nowhere"]
        target.input[source.randrange(len(target.input))] = source.choice(names)
    elif kind == 6 and target.output:
        del target.output[:]
    elif kind == 7:
        nodes.remove(target)
    elif kind == 8 and tensors:
        tensors.remove(source.choice(tensors))
    elif kind == 9 and tensors:
        changed = source.choice(tensors)
        changed.dims[:] = source.choice([[], [0], [3, 3], [1] * 7])
    elif kind == 10 and tensors:
        source.choice(tensors).data_type = source.choice([1, 2, 3, 6, 10, 13, 16, 22])
    elif kind == 11:
        target.domain = source.choice(["", "ai.onnx", "com.example"])


@pytest.mark.parametrize("version", [0, -1, -(2**40), 2**40])
def test_opset_that_does_not_exist(version: int) -> None:
    """Found by fuzzing: numbers beyond 32 bits raised a TypeError."""
    model = good_model()
    model.opset_import[0].version = version
    Path("m.onnx").write_bytes(model.SerializeToString())
    report = amct_onnx.check("m.onnx")
    assert not report.passed


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 6))
def test_no_mutation_crashes_the_check(seed: int, changes: int) -> None:
    source = random.Random(seed)
    model = good_model()
    for _ in range(changes):
        if model.graph.node:
            mutate(model, source)
    Path("m.onnx").write_bytes(model.SerializeToString())
    try:
        report = amct_onnx.check("m.onnx")
    except ModelFileError:
        return
    json.dumps(report.to_dict())
    assert all(f.detail and f.products for f in report.findings)


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_no_flipped_byte_crashes_the_check(position: float, byte: int) -> None:
    content = bytearray(GOLDEN_DEPLOYS[0].read_bytes())
    content[int(position * len(content))] = byte
    Path("m.onnx").write_bytes(content)
    try:
        amct_onnx.check("m.onnx")
    except ModelFileError:
        return


# -- command, report, documentation ---------------------------------------------------------------------------------


def broken_file() -> Path:
    model = good_model()
    set_attribute(model, "conv.dequant", dtype=10)
    path = Path("broken.onnx")
    path.write_bytes(model.SerializeToString())
    return path


def test_command_prints_findings_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    result = in_process(capsys, "check", "--model", broken_file(), "--soc-version", "Ascend310P3")
    assert (result.returncode, result.stderr) == (1, "")
    for text in (
        "error",
        "result-type",
        "conv.dequant",
        "its dtype is 10",
        "Write dtype=0",
        "Check for Ascend310P3: 1 error",
    ):
        assert text in result.stdout
    assert "\x1b" not in result.stdout


def test_command_exits_with_0_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.onnx").write_bytes(good_model().SerializeToString())
    result = in_process(capsys, "check", "--model", "good.onnx", "--soc_version=Ascend950PR_9599")
    assert (result.returncode, result.stdout) == (0, "Check for Ascend950PR_9599: nothing found.\n")
    assert [p.name for p in Path().iterdir()] == ["good.onnx"]


def test_json_is_the_report(capfd: pytest.CaptureFixture[str]) -> None:
    path = broken_file()
    assert cli.main(["check", "--model", str(path), "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert found == json.loads(json.dumps(amct_onnx.check(path).to_dict()))
    assert found["counts"] == {"error": 1, "warning": 0, "note": 2}
    assert (found["schema_version"], found["passed"], found["soc_version"]) == (1, False, None)
    documented = PAGE.read_text(encoding="utf-8")
    for name in [*found, *found["findings"][0]]:
        assert f"`{name}`" in documented or f"`findings[].{name}`" in documented, name


@pytest.mark.parametrize("arguments", [["--model", "none.onnx"], [], ["--model", "x", "--soc_version", "Ascend1"]])
def test_bad_input_is_exit_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(["check", *arguments])
    except SystemExit as usage:
        code = usage.code
    printed, error = capfd.readouterr()
    assert (code, printed) == (2, "") and error
    assert "Traceback" not in error


def test_message_on_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--model", "none.onnx"]) == 2
    assert capsys.readouterr().err.startswith("amct_onnx: error: none.onnx: no such file.")


def test_page_holds_the_current_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python -m amct_onnx.verbs.check.document docs/check.md"


def test_float_model_has_no_finding_of_quantization() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "m.onnx")
    assert amct_onnx.check("m.onnx").findings == ()
