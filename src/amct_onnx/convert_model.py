"""convert_qat_model: read -> normalise -> plan -> emit -> write."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from amct_onnx.emit.deploy import DeployWriter
from amct_onnx.emit.fake_quant import FAKE_QUANT_WEIGHTS, INT8_WEIGHTS, FakeQuantWriter
from amct_onnx.emit.record import record_text
from amct_onnx.errors import OutputError, SettingError
from amct_onnx.log import get_logger, start_log
from amct_onnx.normalise.container import normalise_container
from amct_onnx.normalise.integer_moves import dequantize_before_moves
from amct_onnx.plan.factors import Pair, Plan
from amct_onnx.plan.planner import make_plan
from amct_onnx.read import INPUT_FILES, read_model
from amct_onnx.report import ConversionReport, ResidualEntry
from amct_onnx.write import OutputModel, write_outputs


def convert_qat_model(
    model_file: str | os.PathLike[str],
    save_path: str | os.PathLike[str],
    record_file: str | os.PathLike[str] | None = None,
    *,
    fake_quant_weights: str = INT8_WEIGHTS,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Convert a QAT model with Q/DQ pairs into a deploy model and a fake-quant model.

    Args:
        model_file: the .onnx file.
        save_path: folder and name prefix; with a trailing slash the files get no prefix.
        record_file: path of the factor record to write; none is written when None.
        fake_quant_weights: "int8" keeps the fake-quant model's weights as int8 behind a Cast; "float32" stores the same
            integers as floats, four times as large, as the vendor does.
        progress: called with the bytes written and the bytes of all weights to write, from any thread.

    Returns:
        The verdict on every candidate layer, and the files written.

    Raises:
        AmctError: One of its subclasses, see amct_onnx.errors; nothing has been written.
    """
    if fake_quant_weights not in FAKE_QUANT_WEIGHTS:
        raise SettingError(f"fake_quant_weights is '{fake_quant_weights}'. Use one of {', '.join(FAKE_QUANT_WEIGHTS)}.")
    start_log()
    with _collector_paused():
        model = read_model(model_file)
        inputs = model.meta[INPUT_FILES]
        model = normalise_container(model)
        dequantize_before_moves(model)
        plan = make_plan(model)
        deploy = DeployWriter(model, plan).rewrite()
        fake_quant = FakeQuantWriter(model, plan, fake_quant_weights).rewrite()
    text = os.fspath(save_path)
    folder = Path(os.path.realpath(text if text.endswith(("/", os.sep)) else os.path.dirname(text) or "."))
    prefix = "" if text.endswith(("/", os.sep)) or not text else os.path.basename(text) + "_"
    paths = [folder / f"{prefix}{kind}" for kind in ("deploy_model.onnx", "fake_quant_model.onnx", "quant.json")]
    record = None if record_file is None else _in_real_folder(record_file)
    integers = frozenset(s.weight.name for s in plan.sites)
    models = [OutputModel(deploy, paths[0], integers), OutputModel(fake_quant, paths[1])]
    _check_targets([*paths, *(m.data_path for m in models), *([record] if record else [])], model_file, inputs)
    warnings = plan.warnings
    if integers & models[0].external:
        warnings += (
            f"The int8 weights exceed what one ONNX file can hold: they are in '{models[0].data_path.name}', which "
            "must lie beside the deploy model. ATC may not recognise quantized layers whose weights are external.",
        )
    report = ConversionReport(
        model_file=os.fspath(model_file),
        deploy_model=str(paths[0]),
        fake_quant_model=str(paths[1]),
        ledger_file=str(paths[2]),
        record_file=None if record is None else str(record),
        layers=plan.entries,
        residuals=_residuals(plan),
        warnings=warnings,
    )
    ledger = json.dumps(report.to_dict(), indent=2, ensure_ascii=False)
    texts = {paths[2]: ledger + "\n"}
    if record is not None:
        texts[record] = record_text(plan)
    write_outputs(models, texts, prefix, progress)
    for entry in report.refused:
        get_logger("Convert").warning(
            "Layer %s stays float (%s): %s. %s", entry.name, entry.reason, entry.detail, entry.remedy
        )
    for warning in report.warnings:
        get_logger("Convert").warning("%s", warning)
    for path in paths[:2]:
        get_logger("Utils").info("The model file is saved in %s", path)
    return report


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A graph's objects live until the end; looking through millions of them for cycles again and again finds none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _in_real_folder(path: str | os.PathLike[str]) -> Path:
    """Links to the folder are followed; a link in the place of the file itself is replaced."""
    return Path(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))


def _check_targets(targets: list[Path], model_file: str | os.PathLike[str], inputs: set[tuple[int, int]]) -> None:
    """No output may be an input, or another output.

    Raises:
        OutputError: Names the file.
    """
    for target in targets:
        try:
            status = os.lstat(target)
        except OSError:
            status = None  # a missing file; a missing or wrong folder shows when it is written
        if target == _in_real_folder(model_file) or (status and (status.st_dev, status.st_ino) in inputs):
            raise OutputError(f"{target}: is the input model itself or its data. Choose another save_path.")
        if targets.count(target) > 1:
            raise OutputError(f"{target}: would be written twice. Choose another record_file.")
        if status:
            get_logger("Utils").warning("The existing file %s is replaced", target)


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
