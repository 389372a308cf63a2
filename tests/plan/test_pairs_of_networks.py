"""Pairs that are left in networks of which an exporter quantized every tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_onnx import convert_qat_model
from support.deploy_evaluator import Evaluator, run

NETWORKS = Path(__file__).parents[1] / "data" / "networks"
FEEDS = {"x": np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)}


@pytest.mark.parametrize(
    ("name", "choice", "layers", "quants", "antiquants", "elements"),
    [
        ("dense", "keep", 15, 39, 24, 25_772),
        ("dense", "drop", 15, 15, 0, 9_368),
        ("ocr", "keep", 40, 93, 60, 84_376),
        ("ocr", "drop", 40, 38, 5, 20_408),
        ("windows", "keep", 7, 22, 17, 35_876),
        ("windows", "drop", 7, 5, 0, 6_160),
    ],
)
def test_pairs_left(
    name: str, choice: str, layers: int, quants: int, antiquants: int, elements: int, tmp_path: Path
) -> None:
    report = convert_qat_model(NETWORKS / f"{name}.onnx", tmp_path / "m", residual_quantizers=choice)
    deploy = onnx.load(report.deploy_model)
    evaluator = Evaluator(report.deploy_model)
    found, fake = evaluator.run(FEEDS), run(report.fake_quant_model, FEEDS)
    assert all((found[name] == fake[name]).all() for name in found)
    passed = [n for n in deploy.graph.node if n.op_type in ("AscendQuant", "AscendAntiQuant")]
    assert len(report.converted) == layers
    assert sum(n.op_type == "AscendQuant" for n in passed) == quants and len(passed) == quants + antiquants
    assert sum(evaluator.values[n.output[0]].size for n in passed) == elements
    told = report.cost
    assert told is not None and (told.quant.nodes, told.anti_quant.nodes) == (quants, antiquants)
    # the output of an AscendQuant has as many elements as its input, and the batch is one sample
    assert told.quant.elements + told.anti_quant.elements == elements
