"""docs/recipes.md: ONNX Runtime's recipe is run on a small float model, the others stand on models of tests/data."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from sybil import Example

from amct_onnx.cli import main
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.golden_models import MODELS
from support.page_blocks import DOCS, run_blocks
from support.written_models import write_model

GRAPH = """g (float[N, 3, 16, 16] image) => (float[N, 10] scores) {
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, w1, b1)
    r = Relu(c)
    e = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 8> (r, w2, b2)
    s = Add(r, e)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s)
    t = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (p, w3, b3)
    u = Relu(t)
    a = GlobalAveragePool(u)
    f = Flatten(a)
    h = Gemm <transB = 1> (f, w4, b4)
    v = Relu(h)
    m = MatMul(v, w5)
    scores = Add(m, b5)
}"""
"""Each kind of layer, a residual Add, and Adds of biases."""
SHAPES = {"w1": (8, 3, 3, 3), "w2": (8, 1, 3, 3), "w3": (8, 6, 2, 2), "w4": (12, 6), "w5": (12, 10)}
BIASES = {"b1": 8, "b2": 8, "b3": 6, "b4": 12, "b5": 10}
WHOLE = ("pt2e_digitsnet_x86_dynamo18", "modelopt_digitsnet_int8_op13", "tfmot_digitsnet_op13_nchw")
"""Models that the page says a recipe made."""


def run_line_by_line(example: Example) -> None:
    """Commands of amct_onnx, in this process."""
    for line in example.parsed.strip().splitlines():
        program, *arguments = shlex.split(line)
        assert program == "amct_onnx" and main(arguments) == 0, line


def test_recipe_of_onnxruntime_and_what_follows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {n: random.normal(0, 1 / np.sqrt(np.prod(s[1:])), s).astype(np.float32) for n, s in SHAPES.items()}
    biases = {n: random.normal(0, 0.1, s).astype(np.float32) for n, s in BIASES.items()}
    write_model(tmp_path / "float.onnx", GRAPH, weights | biases)
    np.savez("calibration.npz", x=random.normal(size=(32, 3, 16, 16)).astype(np.float32))
    run_blocks("recipes.md", run_line_by_line)
    assert Path("comparison.html").is_file() and len(list(Path("feeds/image").iterdir())) == 4
    kinds = [n.op_type for n in onnx.load("results/model_deploy_model.onnx").graph.node]
    assert kinds.count("AscendDequant") == 5


@pytest.mark.parametrize("name", WHOLE)
def test_models_of_the_other_recipes_convert_whole(name: str, tmp_path: Path) -> None:
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    version = json.loads((MODELS / name / "meta.json").read_text())["version"]
    assert re.search(rf"`tests/data/models/{name}`\s*\({re.escape(version)}\)", page)
    report = convert_qat_model(MODELS / name / "model.onnx", tmp_path / "m")
    assert len(report.converted) == len(report.layers) == 7
