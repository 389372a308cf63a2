"""quantize_bias: write the source model with the biases that its int8 form will add."""

from __future__ import annotations

import os
from collections.abc import Callable

import onnx_ir as ir

from amct_onnx.common.log import NAMES, get_logger, start_log
from amct_onnx.common.paths import check_paths
from amct_onnx.common.warning_kinds import first_of_each_kind
from amct_onnx.files.output_files import check_targets, in_real_folder
from amct_onnx.files.read import INPUT_FILES
from amct_onnx.files.write import write_outputs
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.opset import opset_of
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.bias_errors import bias_error_of
from amct_onnx.plan.factors import Site
from amct_onnx.plan.ledger import LayerEntry
from amct_onnx.plan.planner import make_plan
from amct_onnx.plan.settings import AsymmetricWeights, GemmPerChannel, PlanSettings
from amct_onnx.verbs.bias.corrections import Correction, correction_of
from amct_onnx.verbs.bias.editable_source import EditableSource
from amct_onnx.verbs.bias.report import EXACT, FLOAT, NO_BIAS, ROUNDED, UNREACHABLE, BiasEntry, BiasReport


def quantize_bias(
    model_file: str | os.PathLike[str],
    output_file: str | os.PathLike[str],
    *,
    grid_weights: bool = True,
    gemm_per_channel: GemmPerChannel = "mul",
    asymmetric_weights: AsymmetricWeights = "refuse",
    progress: Callable[[int, int], None] | None = None,
) -> BiasReport:
    """Write the source with ``round(bias / s) * s``, s = scale_d * scale_w, in every layer that becomes int8.

    Nothing else of the file changes. After it, source and fake-quant model differ by float rounding only.

    Args:
        model_file: the QAT model.
        output_file: path of the model to write; external data go to ``<output_file>.data``.
        grid_weights: as in ``convert_qat_model``: which layers become int8.
        gemm_per_channel: likewise.
        asymmetric_weights: likewise.
        progress: called with the bytes written and the bytes of all weights to write, from any thread.

    Returns:
        What became of the bias of each candidate layer, with its error before and after.

    Raises:
        AmctError: One of its subclasses, see amct_onnx.errors; nothing has been written.
    """
    check_paths(model_file=model_file, output_file=output_file)
    settings = PlanSettings(grid_weights, gemm_per_channel, asymmetric_weights=asymmetric_weights)
    start_log()
    target = in_real_folder(output_file)
    source = EditableSource(model_file)
    inputs = source.model.meta[INPUT_FILES]
    model = normalise(source.model)
    plan = make_plan(model, settings)
    constants = ConstantEvaluator(opset_of(model))
    nodes = {n.name or "": n for n in ir.traversal.RecursiveGraphIterator(model.graph)}
    corrections = {s.node: correction_of(s, nodes, constants) for s in plan.sites}
    reachable = {name: c for name, c in corrections.items() if c is not None and source.holds(c.node)}
    given = source.give([(c.node, c.index, c.array) for c in reachable.values()])
    tensors = dict(zip(reachable, given, strict=True))
    sites = {s.node: s for s in plan.sites}
    layers = tuple(_entry(e, sites.get(e.name), corrections.get(e.name), tensors.get(e.name, "")) for e in plan.entries)
    output = source.output(target)
    for path in check_targets([target, output.data_path], model_file, inputs):
        get_logger("Utils").warning("The existing file %s is replaced", path)
    write_outputs([output], {}, progress)
    report = BiasReport(os.fspath(model_file), str(target), layers)
    unreachable = [f"The bias of layer '{e.name}' is not changed: {e.detail}" for e in report.unreachable]
    for sentence in first_of_each_kind(unreachable, "in the report"):
        get_logger("Bias").warning("%s", sentence, extra=NAMES)
    get_logger("Utils").info("The model file is saved in %s", target)
    return report


def _entry(entry: LayerEntry, site: Site | None, correction: Correction | None, tensor: str) -> BiasEntry:
    if site is None:
        return BiasEntry(entry.name, entry.op_type, FLOAT, detail=f"{entry.reason}: {entry.detail}. {entry.remedy}")
    before = bias_error_of(site)
    if before is None:
        return BiasEntry(entry.name, entry.op_type, NO_BIAS)
    if correction is None:
        return BiasEntry(entry.name, entry.op_type, EXACT, before=before, after=before)
    if not tensor:
        detail = (
            "It is in the body of a function, or replaces other nodes because the opset is below 11 or above 18. "
            "Inline the functions (onnx.inliner), or export with an opset of 11 to 18."
        )
        return BiasEntry(entry.name, entry.op_type, UNREACHABLE, before=before, after=before, detail=detail)
    return BiasEntry(entry.name, entry.op_type, ROUNDED, tensor, before, correction.after)
