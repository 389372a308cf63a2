"""What a conversion wrote, made once more in memory: the form that the files beside a ledger must have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import onnx_ir as ir

from amct_onnx.emit.deploy import DeployEmitter
from amct_onnx.emit.fake_quant import FAKE_QUANT_WEIGHTS, FakeQuantEmitter
from amct_onnx.emit.replaced_parts import replaced_parts
from amct_onnx.files.passed_inputs import FALSE_ENDS
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.factors import Activation, Pair, Reader
from amct_onnx.plan.planner import make_plan
from amct_onnx.plan.settings import ActMatMul, AsymmetricWeights, GemmPerChannel, PlanSettings, ResidualQuantizers
from amct_onnx.verbs.convert.assemble_report import layer_rows
from amct_onnx.verbs.convert.cost import cost_of
from amct_onnx.verbs.convert.datadump_graph import datadump_graph
from amct_onnx.verbs.convert.emitted import nodes_by_layer
from amct_onnx.verbs.convert.overflow import overflow_warnings
from amct_onnx.verbs.convert.report import ConversionReport, Origin
from amct_onnx.verbs.convert.residuals import residual_entries, tensor_names

OPTIONS: dict[str, tuple[Any, ...]] = {
    "grid_weights": (True, False),
    "gemm_per_channel": get_args(GemmPerChannel),
    "keep_conv1d": (True, False),
    "asymmetric_weights": get_args(AsymmetricWeights),
    "residual_quantizers": get_args(ResidualQuantizers),
    "act_matmul": get_args(ActMatMul),
    "fake_quant_weights": FAKE_QUANT_WEIGHTS,
}
"""What each option of a conversion may be."""


@dataclass(frozen=True)
class Written:
    """What a conversion writes.

    Attributes:
        source: normalised.
        fake_quant, deploy: the models.
        left_out: the pairs that both models do not have, where any was dropped, so that they compute other numbers than
            the source; else empty.
        report: what the ledger says, without the paths and without the check's findings.
        quantized: how the inputs of int8 layers are quantized, which need none of these pairs.
    """

    source: ir.Model
    fake_quant: ir.Model
    deploy: ir.Model
    left_out: tuple[Pair, ...]
    quantized: Mapping[Reader, Activation]
    report: ConversionReport


class Again:
    """The conversion of one source, as often as options are tried.

    Args:
        model: the source as it was read; it is used up.
    """

    def __init__(self, model: ir.Model) -> None:
        for text in model.meta[FALSE_ENDS]:
            warn(model, text)
        self._names = frozenset(n.name for n in nodes_of(model) if n.name)
        self._tensors = tensor_names(model)
        self.source = normalise(model)

    def written(self, origin: Origin) -> Written:
        """What the conversion with the options of a ledger writes.

        Args:
            origin: of the ledger, which tells the options.

        Raises:
            AmctError: One of its subclasses: the source cannot be converted.
        """
        settings = PlanSettings(**{f.name: getattr(origin, f.name) for f in fields(PlanSettings)})
        plan = make_plan(self.source, settings)
        replaced = replaced_parts(self.source, plan)
        deploying = DeployEmitter(self.source, plan, replaced)
        deploy = deploying.rewrite()
        faking = FakeQuantEmitter(self.source, plan, replaced, origin.fake_quant_weights)
        fake_quant = faking.rewrite()
        pairs = (*plan.pairs, *plan.moved)
        left_out = tuple(p for p in pairs if p.elided or p.dropped) if any(p.dropped for p in pairs) else ()
        quantized = {(s.node, index): a for s in plan.sites for index, a in enumerate(s.activations)}
        nodes = nodes_by_layer(deploying, plan)
        report = ConversionReport(
            *("", "", "", "", None),
            layers=layer_rows(plan, nodes, nodes_by_layer(faking, plan)),
            residuals=residual_entries(plan, self._tensors),
            float_operators=plan.float_operators,
            warnings=plan.warnings + overflow_warnings(plan),
            graph=datadump_graph(deploy, plan, nodes, self._names),
            origin=origin,
            cost=cost_of(self.source, deploy, plan, deploying.quantizing, self._tensors),
        )
        return Written(self.source, fake_quant, deploy, left_out, quantized, report)


def other_options(origin: Origin) -> Iterator[Origin]:
    """The same origin with another value of one option, each in turn."""
    for name, values in OPTIONS.items():
        for value in values:
            if value != getattr(origin, name):
                yield replace(origin, **{name: value})
