"""The ledger's graph, read as the vendor's comparison reads it; and names that its filter takes for what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.golden_models import MODELS

QUANTIZERS = (".quant", ".weight_quant", "/AscendQuant", "_quant_layer")
DEQUANTIZERS = (".dequant", ".anti_quant", "/AscendDequant", "/AntiQuant", "_dequant_layer", "_anti_quant_layer")
"""Parts of names by which the filter of msaccucmp knows quantizers and dequantizers."""
NAMES = (
    "torchfx_digitsnet_i8sym_op13",
    "torchfx_miscB_i8sym_op13",
    "ort_digitstf_qdq_u8_pc",
    "ort_unetb_qop_u8",
    "modeloptonnx_resnet_fp16",
    "torchfx_digitsnet_i8sym_bnqat_op13",
)


@pytest.fixture(scope="module", params=NAMES)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Source, deploy model, ledger."""
    source = MODELS / request.param / "model.onnx"
    report = convert_qat_model(source, tmp_path_factory.mktemp("g") / "m")
    return source, Path(report.deploy_model), Path(report.ledger_file)


def value_of(attributes: list[dict[str, Any]], key: str) -> Any:
    (found,) = [a["value"] for a in attributes if a["key"] == key]
    return found


def test_every_node_is_told_of_strictly(files: tuple[Path, Path, Path]) -> None:
    source, deploy, ledger = files
    content = json.loads(ledger.read_text(encoding="utf-8"))
    (graph,) = content["graph"]
    model = onnx.load(deploy)
    nodes = {n.name: n for n in model.graph.node}
    assert [o["name"] for o in graph["op"]] == [n.name for n in model.graph.node]
    named = {n.name for n in onnx.load(source).graph.node}
    for number, op in enumerate(graph["op"]):
        assert op["id"] == number and op["type"] == nodes[op["name"]].op_type
        places = [place.rpartition(":") for place in op["input"]]
        assert len(places) == sum(bool(i) for i in nodes[op["name"]].input)
        assert all(int(index) >= 0 and maker for maker, _, index in places)
        originals = value_of(op["attr"], "_datadump_original_op_names")["list"]["s"]
        assert all(isinstance(n, str) and (n == "" or n in named) for n in originals) and originals
        for index, output in enumerate(op["output_desc"]):
            assert output["dtype"].startswith("DT_") and output["dtype"] != "DT_UNDEFINED"
            assert value_of(output["attr"], "_datadump_origin_name")["s"] == originals[-1]
            assert value_of(output["attr"], "_datadump_origin_output_index")["i"] == index


def test_every_layer_finds_its_original(files: tuple[Path, Path, Path]) -> None:
    source, _, ledger = files
    content = json.loads(ledger.read_text(encoding="utf-8"))
    ops = {o["name"]: o for o in content["graph"][0]["op"]}
    named = {n.name for n in onnx.load(source).graph.node}
    layers = [entry for entry in content["layers"] if entry["verdict"] == "converted" and entry["name"] in named]
    assert layers
    for entry in layers:
        *inner, last = entry["deploy_nodes"]
        assert value_of(ops[last]["attr"], "_datadump_original_op_names")["list"]["s"][0] == entry["name"]
        for name in inner:
            assert value_of(ops[name]["attr"], "_datadump_original_op_names")["list"]["s"] == [""]
    quantizers = [o for o in ops.values() if o["type"] == "AscendQuant"]
    assert all(o["output_desc"][0]["dtype"] == "DT_INT8" for o in quantizers)


def test_names_say_what_the_filter_of_the_vendor_looks_for(files: tuple[Path, Path, Path]) -> None:
    _, deploy, _ = files
    for node in onnx.load(deploy).graph.node:
        quantizes = any(part in node.name for part in QUANTIZERS)
        dequantizes = any(part in node.name for part in DEQUANTIZERS)
        expected = {"AscendQuant": (True, False), "AscendDequant": (False, True), "AscendAntiQuant": (False, True)}
        assert (quantizes, dequantizes) == expected.get(node.op_type, (False, False)), node.name
