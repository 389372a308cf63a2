"""convert_qat_model: read -> normalise -> plan -> emit -> write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from amct_onnx.acceptance.checker import check
from amct_onnx.acceptance.report import ERROR
from amct_onnx.emit.deploy import DeployWriter
from amct_onnx.emit.fake_quant import FakeQuantWriter
from amct_onnx.emit.record import record_text
from amct_onnx.errors import OutputError
from amct_onnx.log import get_logger, start_log
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.factors import Pair, Plan
from amct_onnx.plan.planner import make_plan
from amct_onnx.plan.settings import PlanSettings
from amct_onnx.read import read_model
from amct_onnx.report import ConversionReport, ResidualEntry
from amct_onnx.write import save_model, write_all

STAGES = 5
MAX_NAME_BYTES = 255
"""Longest file name of the usual file systems."""


def convert_qat_model(
    model_file: str | os.PathLike[str],
    save_path: str | os.PathLike[str],
    record_file: str | os.PathLike[str] | None = None,
    *,
    grid_weights: bool = True,
    gemm_per_channel: str = "mul",
    keep_conv1d: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Convert a QAT model with Q/DQ pairs into a deploy model and a fake-quant model.

    Args:
        model_file: the .onnx file.
        save_path: folder and name prefix; with a trailing slash the files get no prefix.
        record_file: path of the factor record to write; none is written when None.
        grid_weights: take float weights without Q/DQ that lie on an int8 grid (TensorFlow QAT through tf2onnx).
        gemm_per_channel: what a Gemm or MatMul with one weight scale per output channel becomes: "mul" (one
            AscendDequant scale and a float Mul, exact on every product), "vector" (deq_scale of length N, for products
            and versions that take it) or "refuse" (it stays float, the vendor's rule).
        keep_conv1d: leave 1-D convolutions 1-D in the deploy model instead of holding them as 2-D of height 1.
        progress: called with the number of stages done and of all stages.

    Returns:
        The verdict on every candidate layer, and the files written.

    Raises:
        AmctError: One of its subclasses, see amct_onnx.errors; nothing has been written.
    """
    settings = PlanSettings(grid_weights, gemm_per_channel, keep_conv1d)
    start_log()
    step = progress or (lambda done, total: None)
    model = read_model(model_file)
    step(1, STAGES)
    model = normalise(model)
    step(2, STAGES)
    plan = make_plan(model, settings)
    step(3, STAGES)
    deploy_writer, fake_quant_writer = DeployWriter(model, plan), FakeQuantWriter(model, plan)
    deploy, fake_quant = deploy_writer.rewrite(), fake_quant_writer.rewrite()
    step(4, STAGES)
    paths = output_paths(os.fspath(save_path))
    record = None if record_file is None else Path(os.path.realpath(record_file))
    targets = [*paths, *([record] if record else [])]
    replaced = _check_targets(targets, Path(os.path.realpath(model_file)))
    report = ConversionReport(
        model_file=os.fspath(model_file),
        deploy_model=str(paths[0]),
        fake_quant_model=str(paths[1]),
        ledger_file=str(paths[2]),
        record_file=None if record is None else str(record),
        layers=tuple(
            replace(
                entry,
                deploy_nodes=deploy_writer.nodes_of(entry.name),
                fake_quant_nodes=fake_quant_writer.nodes_of(entry.name),
            )
            for entry in plan.entries
        ),
        residuals=_residuals(plan),
        warnings=plan.warnings,
        check=check(deploy),
    )
    ledger = json.dumps(report.to_dict(), indent=2, ensure_ascii=False)
    files: dict[Path, Callable[[Path], None]] = {
        paths[0]: lambda p: save_model(deploy, p),
        paths[1]: lambda p: save_model(fake_quant, p),
        paths[2]: lambda p: _write_text(p, ledger + "\n"),
    }
    if record is not None:
        files[record] = lambda p: _write_text(p, record_text(plan))
    write_all(files)
    step(STAGES, STAGES)
    for path in replaced:
        get_logger("Utils").warning("The existing file %s is replaced", path)
    for entry in report.refused:
        get_logger("Convert").warning(
            "Layer %s stays float (%s): %s. %s", entry.name, entry.reason, entry.detail, entry.remedy
        )
    for warning in report.warnings:
        get_logger("Convert").warning("%s", warning)
    for finding in report.check.of(ERROR) if report.check is not None else ():
        place = finding.node or finding.tensor or "the model"
        get_logger("Check").error("%s: %s: %s. %s", place, finding.title, finding.detail, finding.remedy)
    for path in paths[:2]:
        get_logger("Utils").info("The model file is saved in %s", path)
    return report


def output_paths(save_path: str) -> list[Path]:
    """Deploy model, fake-quant model and ledger; a path that ends in a slash, ``.`` or ``..`` is a folder."""
    name = os.path.basename(save_path)
    is_folder = name in ("", os.curdir, os.pardir)
    folder = Path(os.path.realpath((save_path if is_folder else os.path.dirname(save_path)) or os.curdir))
    prefix = "" if is_folder else f"{name}_"
    return [folder / f"{prefix}{kind}" for kind in ("deploy_model.onnx", "fake_quant_model.onnx", "quant.json")]


def _check_targets(targets: list[Path], model_file: Path) -> list[Path]:
    """The targets that exist already.

    Raises:
        OutputError: A target is the input model, a folder, another target, or a name that no file can have.
    """
    replaced = []
    for index, target in enumerate(targets):
        if target == model_file:
            raise OutputError(f"{target}: is the input model itself. Choose another save_path or record_file.")
        if target in targets[:index]:
            raise OutputError(f"{target}: the record would overwrite another output. Choose another record_file.")
        try:
            if target.is_dir():
                raise OutputError(f"{target}: is a folder. Choose another save_path or record_file.")
            if target.exists():
                replaced.append(target)
            if len(os.fsencode(target.name)) > MAX_NAME_BYTES:
                raise OutputError(f"{target}: the file name is too long. Choose a shorter save_path or record_file.")
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"{target}: no file can have this name ({error}). Choose another.") from error
    return replaced


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _residuals(plan: Plan) -> tuple[ResidualEntry, ...]:
    consumed = {s.source for s in plan.sites}

    def entry(pair: Pair) -> ResidualEntry:
        if pair.elided:
            return ResidualEntry(
                pair.source, "elided", "its readers quantize with the same factors: removing it is exact"
            )
        if pair.quantizer is not None and pair.quantizer.per_tensor_int8 and pair.source:
            detail = "shared with an int8 layer" if pair.source in consumed else ""
            return ResidualEntry(pair.source, "anti-quant", detail)
        return ResidualEntry(pair.source or pair.output, "float-chain", "its factors do not fit one AscendQuant")

    found = [entry(p) for p in plan.pairs]
    found += [ResidualEntry(source, "quant", f"graph output '{name}'") for name, source, _ in plan.outputs]
    return tuple(found)
