"""Graphs written by the public layout of ``atc --mode=1 --json``, and what is said of each layer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

import amct_onnx
from amct_onnx import cli
from amct_onnx.errors import ModelFileError, ModelNotFoundError
from amct_onnx.verbs.atc.compiled_layers import FLOAT, INT8, MISSING, CompiledReport, compiled_layers
from support.deploy_models import good_model
from support.golden_models import MODELS

PAGE = Path(__file__).parents[3] / "docs" / "check.md"


def operator(
    name: str, kind: str, inputs: list[str], output: str, originals: list[str] | None = None
) -> dict[str, Any]:
    """One operator as GE prints it, with attributes that have nothing to do with layers."""
    attributes: list[dict[str, Any]] = [{"key": "_is_aicpu", "value": {"b": False}}, {"key": "id", "value": {"i": 3}}]
    if originals is not None:
        listed = {"list": {"val_type": 1, **({"s": originals} if originals else {})}}
        attributes.append({"key": "_datadump_original_op_names", "value": listed})
    return {
        "name": name,
        "type": kind,
        "id": 7,
        "input": [f"producer{i}:0" for i in range(len(inputs))],
        "input_desc": [{"dtype": f"DT_{t}", "layout": "NC1HWC0", "shape": {"dim": [1, 2]}} for t in inputs],
        "output_desc": [{"dtype": f"DT_{output}", "attr": [{"key": "origin_format", "value": {"s": "NCHW"}}]}],
        "attr": attributes,
    }


INTEGERS = ["INT8", "INT8", "INT32"]
COMPILED = [
    operator("x", "Data", [], "FLOAT16"),
    operator("conv.quant", "AscendQuant", ["FLOAT16"], "INT8", ["conv.quant"]),
    # the convolution with its AscendDequant and the Sigmoid behind it
    operator("conv_fused", "Conv2D", INTEGERS, "FLOAT16", ["conv", "conv.dequant", "sigmoid1"]),
    operator("deconv.quant", "AscendQuant", ["FLOAT16"], "INT8"),
    # the size of the result is the first input
    operator("PartitionedCall_deconv_Conv2DTranspose_4", "Conv2DTranspose", ["INT32", "INT8", "INT8"], "INT32", []),
    operator("deconv.dequant", "AscendDequant", ["INT32", "UINT64"], "FLOAT16"),
    # back to float
    operator("PartitionedCall_gemm_MatMulV2_9", "MatMulV2", ["FLOAT16", "FLOAT16", "FLOAT16"], "FLOAT16", []),
    operator("PartitionedCall_gemm_add_10", "Add", ["FLOAT16", "FLOAT16"], "FLOAT16", []),
    operator("matmul.quant", "AscendQuant", ["FLOAT16"], "INT8"),
    operator("matmul", "BatchMatMulV2", INTEGERS, "INT32"),
    operator("matmul.dequant", "AscendDequant", ["INT32", "UINT64"], "FLOAT16"),
    operator("skip.antiquant", "AscendAntiQuant", ["INT8"], "FLOAT16"),
]


def written(operators: list[dict[str, Any]], name: str = "om.json") -> Path:
    path = Path(name)
    half = len(operators) // 2
    graphs = [{"name": "ge_default", "op": operators[:half]}, {"name": "partition0", "op": operators[half:]}]
    path.write_text(
        json.dumps({"name": "net", "version": 2, "graph": graphs, "attr": [{"key": "x", "value": {"i": 1}}]})
    )
    return path


def deploy() -> Path:
    path = Path("net_deploy_model.onnx")
    path.write_bytes(good_model().SerializeToString())
    return path


def states(report: CompiledReport) -> dict[str, str]:
    return {layer.name: layer.compiled for layer in report.layers}


def test_layers_of_a_deploy_model_without_ledger() -> None:
    report = compiled_layers(written(COMPILED), deploy())
    assert states(report) == {"conv": INT8, "deconv": INT8, "gemm": FLOAT, "matmul": INT8}
    found = {layer.name: layer for layer in report.layers}
    assert found["conv"].fused_with == ("conv.dequant", "sigmoid1")
    assert found["deconv"].types == ("Conv2DTranspose",) and found["deconv"].fused_with == ()
    assert (
        found["gemm"].detail == "its operator reads DT_FLOAT16, DT_FLOAT16: the compiler rolled the quantization back"
    )
    assert report.quantizers == {"AscendQuant": 3, "AscendDequant": 2, "AscendAntiQuant": 1}
    assert report.ledger is None and not report.passed
    assert report.summary() == (
        "3 of 4 int8 layers are int8 in the compiled model; 1 back to float. Quantizing operators left: 3 AscendQuant, "
        "2 AscendDequant, 1 AscendAntiQuant."
    )


def test_layer_that_the_graph_does_not_name() -> None:
    report = compiled_layers(written([o for o in COMPILED if o["name"] != "matmul"]), deploy())
    assert states(report)["matmul"] == MISSING and "1 not found" in report.summary()


def test_operator_that_only_carries_the_name_does_not_count() -> None:
    """A format conversion in front of the layer, which the compiler names after it."""
    more = operator("trans_0", "TransData", ["FLOAT16"], "FLOAT16", ["conv"])
    assert states(compiled_layers(written([more, *COMPILED]), deploy()))["conv"] == INT8


def test_layer_of_several_operators_is_int8_only_when_all_are() -> None:
    half = operator("conv_group1", "Conv2D", ["FLOAT16", "FLOAT16"], "FLOAT16", ["conv"])
    assert states(compiled_layers(written([*COMPILED, half]), deploy()))["conv"] == FLOAT


def test_all_int8() -> None:
    fixed = [o for o in COMPILED if "gemm" not in o["name"]]
    fixed.append(operator("PartitionedCall_gemm_MatMulV2_9", "QuantBatchMatmulV3", INTEGERS, "FLOAT16", []))
    report = compiled_layers(written(fixed), deploy())
    assert report.passed and set(states(report).values()) == {INT8}


@pytest.mark.parametrize("name", ["torchfx_digitsnet_i8sym_op13", "ort_digitsnet_qdq_onlyconv"])
def test_layers_of_the_ledger(name: str, tmp_path: Path) -> None:
    """Of a real conversion; layers that stay float in the file are float as intended."""
    converted = amct_onnx.convert_qat_model(MODELS / name / "model.onnx", tmp_path / "m")
    graph = []
    for entry in converted.layers:
        kind = {"Conv": "Conv2D"}.get(entry.op_type, "MatMulV2")
        types = INTEGERS if entry.verdict == "converted" else ["FLOAT16", "FLOAT16"]
        graph.append(operator(f"PartitionedCall_{entry.name}_{kind}_{len(graph)}", kind, types, "INT32", []))
    report = compiled_layers(written(graph, str(tmp_path / "om.json")), converted.deploy_model)
    assert report.ledger == converted.ledger_file and report.passed
    expected = {e.name: INT8 if e.verdict == "converted" else FLOAT for e in converted.layers}
    assert states(report) == {layer.name: layer.intended for layer in report.layers} == expected


def test_ledger_of_the_vendor_has_no_layers() -> None:
    path = deploy()
    Path("net_quant.json").write_text(json.dumps({"graph": [{"name": "net", "op": []}]}))
    report = compiled_layers(written(COMPILED), path)
    assert report.ledger is None and len(report.layers) == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"graph": 3}',
        '{"graph": [{"op": [{"name": 1, "type": "x"}]}]}',
        '{"graph": [{"op": [{}]}]}',
        "\xff",
    ],
)
def test_file_that_is_not_a_compiled_graph(text: str) -> None:
    Path("om.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelFileError, match=r"om\.json: not a compiled graph.*atc --mode=1"):
        compiled_layers("om.json", deploy())


def test_missing_files() -> None:
    with pytest.raises(ModelNotFoundError, match="atc --mode=1"):
        compiled_layers("none.json", deploy())
    with pytest.raises(ModelNotFoundError):
        compiled_layers(written(COMPILED), "none.onnx")
    Path("net_quant.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"net_quant\.json"):
        compiled_layers(written(COMPILED), deploy())


# -- the command ------------------------------------------------------------------------------------------------------


def test_table_and_exit_codes(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["atc", "--om_json", str(written(COMPILED)), "--model", str(deploy())]
    assert cli.main(arguments) == 0
    printed = capfd.readouterr().out
    for text in ("gemm", "float", "BatchMatMulV2", "conv.dequant, sigmoid1", "3 of 4 int8 layers", "small-channels"):
        assert text in printed
    assert cli.main([*arguments, "--strict"]) == 1


def test_json_is_documented(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["atc", "--om-json", str(written(COMPILED)), "--model", str(deploy()), "--json"]
    assert cli.main(arguments) == 0
    content = json.loads(capfd.readouterr().out)
    assert content["schema_version"] == 1 and content["passed"] is False
    page = PAGE.read_text(encoding="utf-8").split("## `amct_onnx atc`")[1]
    for name in [*content, *content["layers"][0]]:
        assert f"`{name}`" in page or f"`layers[].{name}`" in page, name


def test_names_of_strangers_do_not_command_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    odd = operator("conv", "Conv2D", INTEGERS, "INT32", ["conv", "\x1b[31mred"])
    assert cli.main(["atc", "--om_json", str(written([odd])), "--model", str(deploy())]) == 0
    assert "\x1b" not in capfd.readouterr().out


def test_in_a_process_of_its_own() -> None:
    line = [sys.executable, "-m", "amct_onnx", "atc", "--om_json", str(written(COMPILED)), "--model", str(deploy())]
    result = subprocess.run([*line, "--strict"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, "")
    assert "3 of 4 int8 layers" in result.stdout


def test_float_model_has_no_layers() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    Path("f.onnx").write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()
    )
    report = compiled_layers(written(COMPILED), "f.onnx")
    assert report.layers == () and report.summary().startswith("0 of 0 int8 layers")
