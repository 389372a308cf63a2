"""Nodes are found in every body, before and behind the note that a graph has none."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from onnx import parser

from amct_onnx.emit.fake_quant import FakeQuantEmitter
from amct_onnx.files.read import read_model
from amct_onnx.graph.edit import FLAT, bodies, nodes_of, note_flat
from amct_onnx.graph.marks import marks_of
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.planner import make_plan
from amct_onnx.plan.settings import PlanSettings

MODELS = Path(__file__).parents[1] / "data" / "models"
TEXT = """<ir_version: 8, opset_import: ["" : 17, "com.vendor" : 1]>
g (float[2] x, bool c) => (float[2] y) {
    y = OPERATOR (c) <
        then_branch = t () => (float[2] p) {
            p = If (c) <
                then_branch = u () => (float[2] r) { r = Sin(x) },
                else_branch = v () => (float[2] s) { s = Cos(x) }
            >
        },
        else_branch = e () => (float[2] w) { w = Log(x) }
    >
}"""


@pytest.mark.parametrize("operator", ("If", "com.vendor.Choose"))
def test_nodes_of_bodies_are_found(operator: str) -> None:
    model = ir.from_proto(parser.parse_model(TEXT.replace("OPERATOR", operator)))
    note_flat(model)
    assert {n.op_type for n in nodes_of(model)} == {operator.split(".")[-1], "If", "Sin", "Cos", "Log"}
    assert len(bodies(model.graph)) == 4


@pytest.mark.parametrize("name", ("ort_digitsnet_qdq_onlyconv", "torchfunc_miscC_op13", "modelopt_mlp3d_int8_op17"))
def test_a_graph_noted_as_flat_is_flat(name: str) -> None:
    source = normalise(read_model(MODELS / name / "model.onnx"))
    assert FLAT in marks_of(source.graph)
    output = FakeQuantEmitter(source, make_plan(source, PlanSettings())).rewrite()
    for model in (source, output):
        assert nodes_of(model) == list(ir.traversal.RecursiveGraphIterator(model.graph))
