"""What is left out of an output model from the start would have gone from it anyway."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from amct_onnx.emit.deploy import DeployEmitter
from amct_onnx.emit.fake_quant import FakeQuantEmitter
from amct_onnx.emit.replaced_parts import replaced_parts
from amct_onnx.emit.rewrite import PlanEmitter
from amct_onnx.files.read import read_model
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.planner import make_plan

MODELS = Path(__file__).parents[1] / "data" / "models"
NAMES = ("ort_digitsnet_qdq_onlyconv", "torchfunc_miscC_op13", "modelopt_mlp3d_int8_op17", "torchfx_miscB_i8sym_op13")


@pytest.mark.parametrize("emitter", (DeployEmitter, FakeQuantEmitter))
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_the_same_with_all_constants(name: str, emitter: type[PlanEmitter]) -> None:
    model = normalise(read_model(MODELS / name / "model.onnx"))
    plan = make_plan(model)
    left_out = replaced_parts(model, plan)
    assert len(left_out) >= len(plan.sites)
    without = ir.to_proto(emitter(model, plan, left_out).rewrite()).SerializeToString()
    assert ir.to_proto(emitter(model, plan).rewrite()).SerializeToString() == without
