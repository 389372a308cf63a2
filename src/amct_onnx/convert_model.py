"""convert_qat_model: read -> normalise -> plan -> emit -> write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from amct_onnx.acceptance.checker import check
from amct_onnx.acceptance.report import ERROR
from amct_onnx.emit.deploy import DeployWriter
from amct_onnx.emit.fake_quant import FakeQuantWriter
from amct_onnx.emit.record import record_text
from amct_onnx.errors import OutputError
from amct_onnx.log import get_logger, start_log
from amct_onnx.normalise.container import normalise_container
from amct_onnx.normalise.integer_moves import dequantize_before_moves
from amct_onnx.plan.factors import Pair, Plan
from amct_onnx.plan.planner import make_plan
from amct_onnx.read import read_model
from amct_onnx.report import ConversionReport, ResidualEntry
from amct_onnx.write import save_model, write_all

STAGES = 5


def convert_qat_model(
    model_file: str | os.PathLike[str],
    save_path: str | os.PathLike[str],
    record_file: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Convert a QAT model with Q/DQ pairs into a deploy model and a fake-quant model.

    Args:
        model_file: the .onnx file.
        save_path: folder and name prefix; with a trailing slash the files get no prefix.
        record_file: path of the factor record to write; none is written when None.
        progress: called with the number of stages done and of all stages.

    Returns:
        The verdict on every candidate layer, and the files written.

    Raises:
        AmctError: One of its subclasses, see amct_onnx.errors; nothing has been written.
    """
    start_log()
    step = progress or (lambda done, total: None)
    model = read_model(model_file)
    step(1, STAGES)
    model = normalise_container(model)
    dequantize_before_moves(model)
    step(2, STAGES)
    plan = make_plan(model)
    step(3, STAGES)
    deploy, fake_quant = DeployWriter(model, plan).rewrite(), FakeQuantWriter(model, plan).rewrite()
    step(4, STAGES)
    text = os.fspath(save_path)
    folder = Path(os.path.realpath(text if text.endswith(("/", os.sep)) else os.path.dirname(text) or "."))
    prefix = "" if text.endswith(("/", os.sep)) or not text else os.path.basename(text) + "_"
    paths = [folder / f"{prefix}{kind}" for kind in ("deploy_model.onnx", "fake_quant_model.onnx", "quant.json")]
    record = None if record_file is None else Path(os.path.realpath(record_file))
    for target in [*paths, *([record] if record else [])]:
        if target == Path(os.path.realpath(model_file)):
            raise OutputError(f"{target}: is the input model itself. Choose another save_path.")
        if target.exists():
            get_logger("Utils").warning("The existing file %s is replaced", target)
    report = ConversionReport(
        model_file=os.fspath(model_file),
        deploy_model=str(paths[0]),
        fake_quant_model=str(paths[1]),
        ledger_file=str(paths[2]),
        record_file=None if record is None else str(record),
        layers=plan.entries,
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
