"""Conversions that leave every quantizer pair where the source has it: what exact rewrites are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from amct_onnx import DeploySession, convert_qat_model
from amct_onnx.device.profiles import PROFILES
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.normalise import pipeline
from amct_onnx.normalise.moves_before_factors import move_elements_before_factors
from amct_onnx.plan import planner
from amct_onnx.plan.factors import Pair
from amct_onnx.plan.grids import Grids
from amct_onnx.plan.pairs import PairPlan
from amct_onnx.verbs.convert.report import ConversionReport
from support.written_models import Array


@contextmanager
def every_pair_kept() -> Iterator[None]:
    """Conversions within leave each pair where the source has it."""

    def keep(
        nodes: list[ir.Node],
        _model: ir.Model,
        _layers: object,
        _outputs: object,
        grids: Grids,
        constants: ConstantEvaluator,
        *_: object,
        **__: object,
    ) -> PairPlan:
        pairs: dict[str, Pair] = {}
        for node in nodes:
            if node.op_type == "DequantizeLinear" and not constants.is_constant(node.outputs[0]):
                made = grids.pair(node)
                if made is not None:
                    name = node.outputs[0].name or ""
                    pairs[name] = Pair(name, made[0].name or "", made[1])
        return PairPlan(pairs, (), {})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "plan_pairs", keep)
        patch.setattr(pipeline, "RULES", [r for r in pipeline.RULES if r is not move_elements_before_factors])
        yield


def outputs(report: ConversionReport, feeds: Mapping[str, Array], device: str) -> list[Array]:
    with DeploySession(report.deploy_model, device=device) as session:
        return [np.asarray(v) for v in session.run(None, dict(feeds))]


def same_on_every_chip(source: Path, feeds: Mapping[str, Array], folder: Path) -> None:
    """The outputs of the deploy model are those that it has with every pair of the source, bit for bit."""
    after = convert_qat_model(source, folder / "after")
    with every_pair_kept():
        before = convert_qat_model(source, folder / "before")
    for device in PROFILES:
        for a, b in zip(outputs(after, feeds, device), outputs(before, feeds, device), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b, err_msg=device)
