"""Sessions of files that were changed, or may have been: what cannot be run is left out and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from amct_onnx.common.counted import counted
from amct_onnx.device.session import DeploySession
from amct_onnx.errors import AmctError
from amct_onnx.files.read import read_model
from amct_onnx.verbs.compare.explain.finer import without
from amct_onnx.verbs.compare.job import DEPLOY, FAKE_QUANT, SOURCE, Job
from amct_onnx.verbs.compare.measure.batch import Batch, Runner
from amct_onnx.verbs.compare.measure.other_sizes import names_sized_by_numbers
from amct_onnx.verbs.compare.measure.sessions import open_reference, pinned_options, show
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.convert.read_ledger import Ledger

Made = Callable[..., tuple[Job, tuple[Paired, ...]]]


def run_what_can(
    made: Made, ledger: Ledger, source: Runner, first: Batch, stage: Callable[[str], None]
) -> tuple[Job, tuple[Paired, ...], Runner]:
    """The job of the models that can be run: with their layers, else with their outputs alone.

    Args:
        made: see ``make_job``, without what is left out.
        ledger: of the conversion.
        source: the sessions of a job without the other models.
        first: the first batch, for which all are run.
        stage: is told which model is opened.

    Raises:
        DataError: The source cannot run the batch.
        AmctError: No form of the job can be run, though each model can by itself.
    """
    outputs = list(source.job.outputs)
    wanted = [source.outputs([name], first)[name] for name in outputs]
    left_out, sizes = {}, {}
    for model in (FAKE_QUANT, DEPLOY):
        stage(f"opening the {model} model")
        made_outputs, why = _outputs(model, ledger, source.job, first)
        if not why and len(made_outputs) != len(wanted):
            why = f"it has {counted(len(made_outputs), 'output')}, the source has {len(wanted)}."
        if why:
            left_out[model] = why
            continue
        pairs = zip(outputs, made_outputs, wanted, strict=True)
        other = [(n, _size(a), _size(b)) for n, a, b in pairs if _size(a) != _size(b)]
        by_numbers = names_sized_by_numbers(source.job.source) if other else set()
        other = [found for found in other if found[0] not in by_numbers]
        if other:
            name, has, meant = other[0]
            sizes[model] = f"Output '{name}' has {counted(has, 'element')} in the {model} model, {meant} in the source."
    forms: list[dict[str, Any]] = [{"left_out": left_out}] if left_out else [{}, {"outputs_only": True}]
    forms += [{"left_out": names} for names in ((DEPLOY,), (FAKE_QUANT,), (FAKE_QUANT, DEPLOY))]
    last = ""
    for form in forms:
        if isinstance(form.get("left_out"), tuple):  # each runs by itself, and not with its tensors shown
            form["left_out"] = left_out | {name: left_out.get(name, last) for name in form["left_out"]}
        try:
            job, layers = made(**form)
            job = replace(job, other_sizes=tuple(sizes.items()))
            runner = Runner(job, stage)
            runner.job = job = without(job, runner.tensors(first), SOURCE)
        except AmctError as error:
            if form is forms[-1]:
                raise
            last = last or str(error)
        else:
            return job, layers, runner
    raise AssertionError("the last form is returned or raises")


def _size(found: Any) -> int:
    """Elements of an output; of a sequence, its tensors."""
    return len(found) if isinstance(found, list) else int(np.size(found))


def _outputs(model: str, ledger: Ledger, job: Job, first: Batch) -> tuple[list[Any], str]:
    """What a model gives by itself, and "", or why it cannot be opened or run."""
    try:
        if model == FAKE_QUANT:
            path = ledger.fake_quant_model
            opened = open_reference(show(read_model(path), path, []), job.threads)
            return list(opened.run(None, dict(first.feeds))), ""
        options = pinned_options(job.threads)
        return list(DeploySession(ledger.deploy_model, options, device=job.devices[0]).run(None, first.feeds)), ""
    except Exception as error:  # onnxruntime's classes share no base
        return [], str(error)
