"""Golden data: each node's output once, under the name that msaccucmp looks for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_onnx import SettingError
from amct_onnx.cli import main
from amct_onnx.verbs.simulate.simulate import simulate
from support.converted_cases import feeds_of
from support.golden_models import GOLDENS

NET = GOLDENS / "qat" / "net" / "m_deploy_model.onnx"
GOLDEN = re.compile(r"^([\.A-Za-z0-9_-]+\.[0-9]+)\.[0-9]{1,255}\.npy$")
"""NUMPY_DUMP_PATTERN of msaccucmp."""


def test_golden_names_are_those_of_the_nodes_that_make_the_tensors() -> None:
    np.save("d.npy", feeds_of("qat/net")["x"])
    line = ["simulate", "--model", str(NET), "--data", "d.npy", "--dump", "layers"]
    assert main([*line, "--save_path", "board"]) == 0
    assert main([*line, "--save_path", "golden", "--dump_format", "golden"]) == 0
    found = {}
    for file in Path("golden/000000").iterdir():
        match = GOLDEN.fullmatch(file.name)
        assert match is not None
        assert len(file.name.split(".")[-2]) == 16  # microseconds
        found[match[1]] = np.load(file)
    nodes = {n.name.replace("/", "_").replace(".", "_"): n for n in onnx.load(NET).graph.node}
    assert {name.rpartition(".")[0] for name in found} <= set(nodes)
    kinds = {nodes[name.rpartition(".")[0]].op_type for name in found}
    assert {"AscendQuant", "AscendDequant", "Conv"} <= kinds
    for file in Path("board/000000").glob("*.output.0.npy"):
        assert np.array_equal(found[f"{file.name.split('.')[1]}.0"], np.load(file))
    for layer in json.loads(Path("golden/simulation.json").read_text())["layers"]:
        quantizer = layer["quantizer"].replace("/", "_").replace(".", "_")
        assert found[f"{quantizer}.0"].dtype == np.int8


def test_golden_data_are_npy() -> None:
    with pytest.raises(SettingError, match=r"\.npy"):
        simulate(NET, "d.npy", "out", dump_format="golden", file_format="bin")
