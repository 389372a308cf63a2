"""convert_qat_model: read -> normalise -> plan -> emit -> write."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from amct_onnx.common.json_text import json_bytes
from amct_onnx.common.log import get_logger, start_log
from amct_onnx.common.paths import check_paths
from amct_onnx.common.versions import CODE, deciding_versions
from amct_onnx.device.chips import find_chip
from amct_onnx.emit.deploy import DeployEmitter
from amct_onnx.emit.fake_quant import FAKE_QUANT_WEIGHTS, INT8_WEIGHTS, FakeQuantEmitter, FakeQuantWeights
from amct_onnx.emit.quantizing_nodes import QuantizingNodes
from amct_onnx.emit.record import is_own_record, record_text
from amct_onnx.emit.replaced_parts import replaced_parts
from amct_onnx.errors import OutputError, SettingError
from amct_onnx.files.compose import data_path
from amct_onnx.files.model_in_memory import as_file
from amct_onnx.files.output_files import check_targets, identities, in_real_folder, output_files
from amct_onnx.files.passed_inputs import FALSE_ENDS
from amct_onnx.files.read import INPUT_FILES, read_model
from amct_onnx.files.write import write_outputs
from amct_onnx.graph.believed_shapes import believed_shapes
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.model_digest import model_digest
from amct_onnx.graph.model_warnings import warn
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.factors import Plan
from amct_onnx.plan.planner import make_plan
from amct_onnx.plan.settings import ActMatMul, AsymmetricWeights, GemmPerChannel, PlanSettings, ResidualQuantizers
from amct_onnx.verbs.check.checker import check
from amct_onnx.verbs.check.report import CheckReport
from amct_onnx.verbs.convert.assemble_report import Targets, assemble_report, int8_weights
from amct_onnx.verbs.convert.cost import Cost, cost_of
from amct_onnx.verbs.convert.datadump_graph import Graph, datadump_graph
from amct_onnx.verbs.convert.emitted import emitted
from amct_onnx.verbs.convert.log_report import log_report
from amct_onnx.verbs.convert.recorded_factors import insert_recorded_quantizers
from amct_onnx.verbs.convert.report import ConversionReport, Origin
from amct_onnx.verbs.convert.residuals import tensor_names

if TYPE_CHECKING:
    from amct_onnx.files.model_in_memory import AnyModel


def convert_qat_model(
    model_file: AnyModel,
    save_path: str | os.PathLike[str],
    record_file: str | os.PathLike[str] | None = None,
    *,
    grid_weights: bool = True,
    gemm_per_channel: GemmPerChannel = "mul",
    keep_conv1d: bool = False,
    asymmetric_weights: AsymmetricWeights = "refuse",
    residual_quantizers: ResidualQuantizers = "keep",
    act_matmul: ActMatMul = "on",
    fake_quant_weights: FakeQuantWeights = INT8_WEIGHTS,
    soc_version: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Convert a QAT model with Q/DQ pairs into a deploy model and a fake-quant model.

    Args:
        model_file: the .onnx file; or a model in memory, an ``onnx.ModelProto`` or ``onnx_ir.Model``, which is written
            to a temporary folder first.
        save_path: folder and name prefix; with a trailing slash the files get no prefix.
        record_file: path of the factor record to write; none is written when None. Of files that are there, only a
            record that a conversion wrote is replaced.
        grid_weights: convert float weights without Q/DQ whose values lie on an int8 grid (TensorFlow QAT through
            tf2onnx).
        gemm_per_channel: what a Gemm or MatMul with one weight scale per output channel becomes: "mul" (one
            AscendDequant scale and a float Mul, exact on every chip), "vector" (deq_scale of length N, for chips and
            versions that accept it) or "refuse" (it stays float, the vendor's rule).
        keep_conv1d: leave 1-D convolutions 1-D in the deploy model instead of holding them as 2-D of height 1.
        asymmetric_weights: what happens to a layer whose weight does not fit int8 after subtracting its zero
            point. "refuse": it stays float. "sum": it becomes int8, and a second layer of one output channel sums its
            input; this is exact.
        residual_quantizers: what happens to quantizers that feed no int8 layer. "keep": they round as in the source.
            "drop": their readers get unrounded numbers, and the device is spared two passes over the tensor; a
            saturation that stands for a Relu or a Clip stays. ``compare`` shows what it costs.
        act_matmul: what a MatMul of two activations (attention) becomes when both quantizers are symmetric. "on": an
            int8 layer; "off": it stays float.
        fake_quant_weights: "int8" keeps the fake-quant model's weights as int8 behind a Cast; "float32" stores the same
            integers as floats, four times as large, as the vendor does.
        soc_version: name of the chip that the deploy model is checked for; None for every known one. The files do not
            depend on it.
        progress: called with the bytes written and the bytes of all weights to write, from any thread.

    Returns:
        The verdict on every candidate layer, and the files written.

    Raises:
        AmctError: One of its subclasses, see amct_onnx.errors; nothing has been written.
    """
    settings = PlanSettings(
        grid_weights, gemm_per_channel, keep_conv1d, asymmetric_weights, residual_quantizers, act_matmul
    )
    return _run(_Request(model_file, save_path, record_file, None, settings, fake_quant_weights, soc_version, progress))


def convert_model(
    model_file: AnyModel,
    scale_offset_record_file: str | os.PathLike[str],
    save_path: str | os.PathLike[str],
    *,
    gemm_per_channel: GemmPerChannel = "mul",
    keep_conv1d: bool = False,
    residual_quantizers: ResidualQuantizers = "keep",
    act_matmul: ActMatMul = "on",
    fake_quant_weights: FakeQuantWeights = INT8_WEIGHTS,
    soc_version: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Convert a float model and a record of quantization factors, as the vendor's other tools and PPQ write them.

    The result is that of a QAT model whose Q/DQ nodes hold these factors.

    Args:
        model_file: the float .onnx file, or a model in memory.
        scale_offset_record_file: the record, protobuf text; its keys are names of nodes. It is only read.
        save_path: as ``convert_qat_model`` takes it.
        gemm_per_channel: as there.
        keep_conv1d: as there.
        residual_quantizers: as there; they are those of recorded layers that stay float.
        act_matmul: as there.
        fake_quant_weights: as there.
        soc_version: as there.
        progress: as there.

    Returns:
        The verdict on every candidate layer, and the files written.

    Raises:
        FactorError: A layer of the record is not in the model, or its factors do not fit it.
        AmctError: One of its subclasses, see amct_onnx.errors; nothing has been written.
    """
    settings = PlanSettings(False, gemm_per_channel, keep_conv1d, "refuse", residual_quantizers, act_matmul)
    check_paths(scale_offset_record_file=scale_offset_record_file)
    factors = os.fspath(scale_offset_record_file)
    return _run(_Request(model_file, save_path, None, factors, settings, fake_quant_weights, soc_version, progress))


@dataclass(frozen=True)
class _Request:
    """The arguments of a conversion."""

    model_file: AnyModel
    save_path: str | os.PathLike[str]
    record_file: str | os.PathLike[str] | None
    factors_file: str | None
    settings: PlanSettings
    fake_quant_weights: FakeQuantWeights
    soc_version: str | None
    progress: Callable[[int, int], None] | None


def _run(request: _Request) -> ConversionReport:
    check_paths("record_file", save_path=request.save_path, record_file=request.record_file)
    weights = request.fake_quant_weights
    if weights not in FAKE_QUANT_WEIGHTS:
        raise SettingError(f"--fake_quant_weights is '{weights}'. Use one of {', '.join(FAKE_QUANT_WEIGHTS)}.")
    if request.soc_version is not None:
        find_chip(request.soc_version)  # an unknown name is said before a long conversion
    start_log()
    with as_file(request.model_file) as (path, name), _collector_paused():
        report, replaced = _convert(request, path, name)
    log_report(report, replaced)
    return report


def _read(request: _Request, path: str | os.PathLike[str]) -> tuple[ir.Model, str | None]:
    """The source, and the text of its record; a float model gets the quantizers that the record tells of."""
    model = read_model(path)
    for text in model.meta[FALSE_ENDS]:
        warn(model, text)
    if request.factors_file is None:
        return model, None
    from amct_onnx.files.read_record import read_record  # imports msgspec, which a QAT model does not need

    record = read_record(request.factors_file)
    insert_recorded_quantizers(model, record, request.factors_file)
    return model, record.text


@dataclass(frozen=True)
class _Source:
    """The normalised source, and what is known of the model as the user gave it.

    Attributes:
        model: the normalised graph.
        origin: what a conversion of the same bytes is recognised by.
        inputs: identities of the files that were read.
        names: names of the user's nodes.
        tensors: names of the user's tensors.
    """

    model: ir.Model
    origin: Origin
    inputs: Set[tuple[int, int]]
    names: frozenset[str]
    tensors: frozenset[str]


def _source(request: _Request, path: str | os.PathLike[str]) -> _Source:
    model, record = _read(request, path)
    origin = _origin(model, request, record)
    inputs = model.meta[INPUT_FILES] | identities([request.factors_file] if request.factors_file else [])
    names = frozenset(n.name for n in nodes_of(model) if n.name)
    tensors = tensor_names(model)
    return _Source(normalise(model), origin, inputs, names, tensors)


def _check_free(targets: Targets, model_file: str | os.PathLike[str], inputs: Set[tuple[int, int]]) -> list[Path]:
    """The files that were there before.

    Raises:
        OutputError: A target is an input, cannot be written, or is a record that no conversion wrote.
    """
    record = targets.record
    files = [*targets.paths, *(data_path(p) for p in targets.paths[:2]), *([record] if record else [])]
    replaced = check_targets(files, model_file, inputs)
    if record in replaced and not record.is_symlink():  # a link is replaced, and what it points to stays
        _check_own(record)
    return replaced


def _examined(
    source: _Source,
    plan: Plan,
    soc_version: str | None,
    made: ir.Model,
    nodes: dict[str, tuple[str, ...]],
    quantizing: QuantizingNodes,
) -> tuple[CheckReport, tuple[Graph, ...], Cost]:
    """What is found in the deploy model while it is there."""
    graph = datadump_graph(made, plan, nodes, source.names)
    return check(made, soc_version), graph, cost_of(source.model, made, plan, quantizing, source.tensors)


def _say_where(save_path: str, deploy_model: Path) -> None:
    """A prefix that looks like a folder or a file gives names that its user may not expect: the log says them."""
    if os.path.basename(save_path) in ("", os.curdir, os.pardir):
        return
    if os.path.isdir(save_path):
        what = "is an existing folder: end it with a slash to write into it"
    elif save_path.endswith(".onnx"):
        what = "ends in .onnx: it is a folder and name prefix, not the name of a file"
    else:
        return
    get_logger("Utils").warning("save_path '%s' %s. The deploy model becomes %s", save_path, what, deploy_model)


def _convert(request: _Request, path: str | os.PathLike[str], name: str) -> tuple[ConversionReport, list[Path]]:
    """The report, and the files that were there before; the model's path, and its name for people."""
    _, paths = output_files(os.fspath(request.save_path))
    _say_where(os.fspath(request.save_path), paths[0])
    targets = Targets(tuple(paths), None if request.record_file is None else in_real_folder(request.record_file))
    source = _source(request, path)
    plan = make_plan(source.model, request.settings)
    replaced = _check_free(targets, path, source.inputs)
    _free_garbage()
    origin, tensors, believed = source.origin, source.tensors, believed_shapes(source.model)
    left_out = replaced_parts(source.model, plan)
    deploy = emitted(
        DeployEmitter(source.model, plan, left_out),
        plan,
        paths[0],
        int8_weights(plan),
        partial(_examined, source, plan, request.soc_version),
        believed,
    )
    _free_garbage()
    fake_quant = emitted(
        FakeQuantEmitter(source.model, plan, left_out, request.fake_quant_weights),
        plan,
        paths[1],
        frozenset(),
        lambda *_: None,
        believed,
    )
    del source, left_out
    report = assemble_report(name, targets, plan, origin, deploy, fake_quant, tensors)
    texts: dict[Path, str | bytes] = {paths[2]: json_bytes(report)}
    if targets.record is not None:
        texts[targets.record] = record_text(plan)
    write_outputs([deploy.composition, fake_quant.composition], texts, request.progress)
    return report, replaced


def _origin(source: ir.Model, request: _Request, record: str | None) -> Origin:
    versions = deciding_versions()
    return Origin(
        version=versions["amct_onnx"],
        code=versions[CODE],
        source_digest=model_digest(source),
        **asdict(request.settings),
        fake_quant_weights=request.fake_quant_weights,
        record=record,
    )


def _check_own(record: Path) -> None:
    """A record of another tool is its user's work: it is never replaced.

    Raises:
        OutputError: The file is not a record that a conversion wrote.
    """
    from amct_onnx.common.typed_json import read_bounded  # imports msgspec, which a first conversion does not need

    try:
        own = is_own_record(read_bounded(record).decode())
    except (OSError, ValueError):
        own = False
    if not own:
        raise OutputError(
            f"{record}: exists and was not written by a conversion, so it is not overwritten (--from_record is what "
            "reads factors). Give --record_file another path."
        )


def _free_garbage() -> None:
    """Free the graphs that ended since the last call: their nodes and values refer to each other.

    Only objects made since then are looked through, so that all calls together cost one pass over what was made.
    """
    gc.collect(0)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the collector: it would search millions of living objects for cycles in vain; see ``_free_garbage``.

    What is left ends with the conversion, and is freed in a last pass: the collector counts objects only while it runs,
    so between many conversions it would never look for it. Behind an error the traceback still holds it; then the next
    conversion frees it. A caller that has switched the collector off, as the command does, gets no such pass.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        gc.collect(1)
        yield
        if enabled:
            gc.collect(1)
    finally:
        if enabled:
            gc.enable()
