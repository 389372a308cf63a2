"""Types and ranges of a ledger's fields, and how they must agree; docs/ledger.md says what they mean.

Fields are those that this version writes, no more and no fewer: converting again takes less than a wrong comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from amct_onnx.common.counted import counted
from amct_onnx.common.typed_json import ContentError
from amct_onnx.emit.fake_quant import FakeQuantWeights
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.reasons import Reason
from amct_onnx.plan.ledger import (
    CONVERTED,
    BiasError,
    Granularity,
    LayerEntry,
    LayerVerdict,
    ResidualAction,
    is_part,
)
from amct_onnx.plan.settings import ActMatMul, AsymmetricWeights, GemmPerChannel, ResidualQuantizers
from amct_onnx.verbs.check.report import Severity
from amct_onnx.verbs.convert.report import summary_of

MAX_NAME = 1 << 24
"""Limit of characters in a name or sentence: names of a megabyte occur."""
FLOAT32_MAX = 3.4028234663852886e38
SLACK = 1 + 1e-9
"""A mean of equal float64 numbers may come out above their largest."""

MAX_RECORD = 64 << 20
"""Characters of the record in a ledger: some million factors."""
Text = Annotated[str, Meta(max_length=MAX_NAME)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Names = tuple[Name, ...]
Scale = Annotated[float, Meta(gt=0, le=FLOAT32_MAX)]
Size = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0, le=1 << 53)]


class BiasErrorContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``report.BiasError``."""

    max_steps: Size
    max_lsb: Size | None
    mean_lsb: Size | None
    worst_channel: Count


class LayerContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``report.LayerEntry``."""

    name: Name
    op_type: Name
    verdict: LayerVerdict
    granularity: Granularity | None
    scale_d: Scale | None
    read_scale: Scale | None
    offset_d: Annotated[int, Meta(ge=-128, le=127)] | None
    scale_w: tuple[Scale, ...]
    reason: Reason | None
    detail: Text
    remedy: Text
    deploy_nodes: Names
    fake_quant_nodes: Names
    source_input: Text
    second_input: Text
    second_scale_d: Scale | None
    source_output: Name
    output_scale: Scale | None
    bias_error: BiasErrorContent | None


class ResidualContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``report.ResidualEntry``."""

    tensor: Name
    action: ResidualAction
    detail: Text
    scale: Scale | None
    read_scale: Scale | None
    low: float | None
    high: float | None


class FloatOperatorContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``report.FloatOperator``."""

    name: Name
    op_type: Name
    tensor: Text


class PassesContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``cost.Passes``."""

    nodes: Count
    elements: Count


class ChangeContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``exporter_changes.Change``."""

    producer: Name
    readers: Name
    pairs: Count
    quant: Count
    anti_quant: Count
    float_quant: Count
    elements: Count
    advice: Text


class CostContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``cost.Cost``."""

    macs: Count
    constant_macs: Count
    int8_macs: Count
    int8_constant_macs: Count
    unknown: Count
    int8_layers: Count
    float_operators: Count
    source: PassesContent
    source_float: PassesContent
    quant: PassesContent
    anti_quant: PassesContent
    float_quant: PassesContent
    changes: tuple[ChangeContent, ...]
    exporter: Text = ""
    free_axes: Names = ()


class FindingContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``verbs.check.report.Finding``."""

    rule: Name
    severity: Severity
    title: Text
    node: Text
    tensor: Text
    detail: Text
    why: Text
    source: Text
    remedy: Text
    products: Names
    cann: Names


class CountsContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Findings of each severity."""

    error: Count
    warning: Count
    note: Count


class CheckContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``verbs.check.report.CheckReport``."""

    schema_version: Count
    model_file: Text | None
    soc_version: Text | None
    products: Names
    cann: Names
    findings: tuple[FindingContent, ...]
    counts: CountsContent
    passed: bool
    summary: Text


class OpContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node of ``datadump_graph``."""

    name: Text
    type: Name
    id: Count
    input: tuple[Text, ...]
    attr: tuple[dict[str, Any], ...]
    output_desc: tuple[dict[str, Any], ...]


class GraphContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``datadump_graph``: it is for another program, and not used here."""

    name: Text
    op: tuple[OpContent, ...]


class OriginContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``report.Origin``."""

    version: Name
    code: Name
    source_digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    grid_weights: bool
    gemm_per_channel: GemmPerChannel
    keep_conv1d: bool
    asymmetric_weights: AsymmetricWeights
    residual_quantizers: ResidualQuantizers
    act_matmul: ActMatMul
    fake_quant_weights: FakeQuantWeights
    record: Annotated[str, Meta(max_length=MAX_RECORD)] | None


class LedgerContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of ``<prefix>_quant.json``."""

    schema_version: Count
    model_file: Text
    deploy_model: Text
    fake_quant_model: Text
    ledger_file: Text
    record_file: Text | None
    layers: tuple[LayerContent, ...]
    residuals: tuple[ResidualContent, ...]
    float_operators: tuple[FloatOperatorContent, ...]
    warnings: tuple[Text, ...]
    check: CheckContent | None
    graph: tuple[GraphContent, ...]
    origin: OriginContent | None
    cost: CostContent | None
    summary: Text


class Version(msgspec.Struct, frozen=True):
    """The part of a ledger that tells its version."""

    schema_version: Count


def layer_entries(content: LedgerContent) -> tuple[LayerEntry, ...]:
    """The layers of a ledger whose fields agree with each other.

    Raises:
        ContentError: They do not; the text names the field.
    """
    names = Counter(layer.name for layer in content.layers)
    for index, layer in enumerate(content.layers):
        place = f"$.layers[{index}]"
        if names[layer.name] > 1:
            raise ContentError(f"{place}.name: '{layer.name}' stands there {names[layer.name]} times")
        for field, problem in _problems(layer):
            raise ContentError(f"{place}.{field}: {problem}")
    entries = tuple(_entry(layer) for layer in content.layers)
    if content.summary != (right := summary_of(entries)):
        raise ContentError(f"$.summary: says '{content.summary}', the layers say '{right}'")
    if content.check is not None:
        _check_counts(content.check)
    return entries


def _entry(layer: LayerContent) -> LayerEntry:
    values = {f.name: getattr(layer, f.name) for f in fields(LayerEntry)}
    if layer.bias_error is not None:
        values["bias_error"] = BiasError(**msgspec.structs.asdict(layer.bias_error))
    return LayerEntry(**values)


def _problems(layer: LayerContent) -> Sequence[tuple[str, str]]:
    """Fields that contradict the verdict or each other, and how."""
    problems: list[tuple[str, str]] = []
    factors = {n: getattr(layer, n) for n in ("granularity", "scale_d", "read_scale", "offset_d")}
    others = {"scale_w": layer.scale_w, "source_input": layer.source_input, "deploy_nodes": layer.deploy_nodes}
    if layer.verdict == CONVERTED:
        problems += [("op_type", f"'{layer.op_type}' has no int8 form")] if layer.op_type not in LAYER_KINDS else []
        problems += [(n, "null, but the layer is int8") for n, v in factors.items() if v is None]
        problems += [(n, "empty, but the layer is int8") for n, v in others.items() if not v]
        problems += [("fake_quant_nodes", "empty, but the layer is int8")] if not layer.fake_quant_nodes else []
        problems += [("reason", "given, but the layer is int8")] if layer.reason is not None else []
        if (layer.granularity == "per-tensor") != (len(layer.scale_w) == 1):
            problems.append(
                ("scale_w", f"has {counted(len(layer.scale_w), 'scale')}, but the layer is {layer.granularity}")
            )
    else:
        problems += [(n, "given, but the layer is float") for n, v in factors.items() if v is not None]
        if is_part(layer.name) or layer.name in layer.deploy_nodes:
            others.pop("deploy_nodes")
        problems += [(n, "given, but the layer is float") for n, v in others.items() if v]
        problems += [("bias_error", "given, but the layer is float")] if layer.bias_error is not None else []
        problems += [("reason", "null, but the layer is float")] if layer.reason is None else []
    if layer.verdict == CONVERTED and not {layer.name} <= set(layer.deploy_nodes) & set(layer.fake_quant_nodes):
        problems.append(("name", "is not among the layer's nodes"))
    problems += _second_problems(layer)
    for name in ("deploy_nodes", "fake_quant_nodes"):
        nodes = getattr(layer, name)
        if len(set(nodes)) < len(nodes):
            problems.append((name, "holds a node twice"))
    return problems + _bias_problems(layer)


def _second_problems(layer: LayerContent) -> list[tuple[str, str]]:
    if bool(layer.second_input) != (layer.second_scale_d is not None):
        return [("second_scale_d", "second_input and second_scale_d are given together, or neither")]
    if layer.second_scale_d is not None and (layer.verdict != CONVERTED or layer.op_type != "MatMul"):
        return [("second_scale_d", "given, but the layer is not an int8 MatMul")]
    if layer.second_scale_d is not None and (layer.offset_d or layer.granularity != "per-tensor"):
        return [("second_scale_d", "given, but the layer has an offset or several scales")]
    return []


def _bias_problems(layer: LayerContent) -> list[tuple[str, str]]:
    error = layer.bias_error
    if error is None:
        return []
    if (error.max_lsb is None) != (error.mean_lsb is None) or (error.max_lsb is None) != (layer.output_scale is None):
        return [("bias_error", "max_lsb, mean_lsb and output_scale are null together, or none of them")]
    if error.max_lsb is not None and error.mean_lsb is not None and error.mean_lsb > error.max_lsb * SLACK:
        return [("bias_error.mean_lsb", "is larger than max_lsb")]
    if len(layer.scale_w) > 1 and error.worst_channel >= len(layer.scale_w):
        return [("bias_error.worst_channel", f"is not one of {len(layer.scale_w)} channels")]
    return []


def _check_counts(check: CheckContent) -> None:
    counts: Counter[str] = Counter(f.severity for f in check.findings)
    for severity in check.counts.__struct_fields__:
        if getattr(check.counts, severity) != counts[severity]:
            raise ContentError(f"$.check.counts.{severity}: is not the number of such findings, {counts[severity]}")
    if check.passed == bool(counts["error"]):
        raise ContentError("$.check.passed: contradicts the findings")
