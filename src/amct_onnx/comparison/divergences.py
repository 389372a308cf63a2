"""The first divergence of each model.

A fault of the deploy model is looked for without a device's rounding, whose bound is so wide that it would hide many:
the device ``reference`` rounds as the source does. When it was not asked for, it runs the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from amct_onnx.comparison.batch import Batch, Results, Runner
from amct_onnx.comparison.closer_look import Look, look
from amct_onnx.comparison.diagnosis import Examined, diagnose, examine
from amct_onnx.comparison.job import FAKE_QUANT, SOURCE, Job, deploy_key, input_keys, layer_lsb
from amct_onnx.comparison.ledger import Ledger
from amct_onnx.comparison.noise import gains
from amct_onnx.comparison.pairing import Paired
from amct_onnx.comparison.report import Divergence
from amct_onnx.comparison.sessions import Array
from amct_onnx.read import read_model

REFERENCE = "reference"
CHANNELS_LAST = ("Gemm", "MatMul")

Tensors = Callable[[], dict[str, dict[str, Array]]]


def find_divergences(
    job: Job, layers: Sequence[Paired], ledger: Ledger, results: Results, first: Batch, tensors: Tensors
) -> list[tuple[Divergence, bool]]:
    """At most one divergence for each model but the source, and whether it is a fault.

    Args:
        job: see ``make_job``.
        layers: see ``make_job``.
        ledger: of the conversion.
        results: of all batches.
        first: the first batch.
        tensors: of the first batch, by model and name.
    """
    gain = gains(ledger.layers, read_model(ledger.deploy_model))
    lsb = [layer_lsb(pair)[0] for pair in layers]

    def of(asked: Job, model: str, found: Results, shown: Tensors) -> tuple[list[Examined], Divergence | None, bool]:
        examined = examine(model, layers, found, input_keys(asked, layers), gain, lsb)
        return examined, *diagnose(model, layers, examined, found, lsb, _looks(asked, layers, model, shown))

    sharp = deploy_key(REFERENCE)
    if REFERENCE in job.devices:
        _, fault, is_fault = of(job, sharp, results, tensors)
    else:
        probe = _with_reference(job)
        runner = Runner(probe)
        _, fault, is_fault = of(probe, sharp, runner.run(first), lambda: runner.tensors(first))
    divergences = []
    for model in job.models:
        examined, own, wrong = of(job, model, results, tensors)
        if model not in (FAKE_QUANT, sharp) and fault is not None and is_fault:
            if own is None or not wrong or own.index >= fault.index:
                measured = next((e.measured for e in examined if e.index == fault.index), fault.measured)
                text = f"The deploy model is wrong, seen without the rounding of a device: {fault.text}"
                own, wrong = replace(fault, model=model, measured=measured, text=text), True
        if own is not None:
            divergences.append((own, wrong))
    return divergences


def _with_reference(job: Job) -> Job:
    """The same comparison on the device ``reference`` alone."""
    name = deploy_key(job.devices[0])
    tracked = tuple(
        replace(t, others={FAKE_QUANT: t.others[FAKE_QUANT], deploy_key(REFERENCE): t.others[name]})
        for t in job.tracked
    )
    return replace(job, devices=(REFERENCE,), tracked=tracked, evaluator="")


def _looks(job: Job, layers: Sequence[Paired], model: str, tensors: Tensors) -> Callable[[int], Look | None]:
    tracked = {t.key: t for t in job.tracked}

    def look_at(index: int) -> Look | None:
        t = tracked.get(f"layer:{index}")
        if t is None:
            return None
        shown = tensors()
        source, other = shown[SOURCE][t.source], shown[model][t.others[model]]
        axis = -1 if layers[index].entry.op_type in CHANNELS_LAST else 1
        return look(source, other, axis) if source.ndim > 1 else None

    return look_at
