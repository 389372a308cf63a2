"""What a conversion wrote, made once more in memory: the form that the files beside a ledger must have."""

from __future__ import annotations

import os

import onnx_ir as ir

from amct_onnx.emit.deploy import DeployEmitter
from amct_onnx.emit.fake_quant import FakeQuantEmitter
from amct_onnx.files.read import read_model
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.planner import make_plan
from amct_onnx.plan.settings import PlanSettings
from amct_onnx.verbs.convert.report import Origin


def written_again(model_file: str | os.PathLike[str], origin: Origin) -> tuple[ir.Model, ir.Model, ir.Model]:
    """The normalised source, the fake-quant model and the deploy model.

    Args:
        model_file: the source.
        origin: of the ledger, which tells the options.

    Raises:
        AmctError: One of its subclasses: the source cannot be read or converted.
    """
    source = normalise(read_model(model_file))
    settings = PlanSettings(origin.grid_weights, origin.gemm_per_channel, origin.keep_conv1d, origin.asymmetric_weights)
    plan = make_plan(source, settings)
    deploy = DeployEmitter(source, plan).rewrite()
    return source, FakeQuantEmitter(source, plan, origin.fake_quant_weights).rewrite(), deploy
