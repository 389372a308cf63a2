"""What to say of tensors that had another number of elements than in the source, as numbers decide how many."""

from __future__ import annotations

from amct_onnx.common.counted import counted
from amct_onnx.verbs.compare.job import Job
from amct_onnx.verbs.compare.key import OUTPUT
from amct_onnx.verbs.compare.measure.batch import Results
from amct_onnx.verbs.compare.present.found import listed_models

NAMED = 5
"""Tensors between nodes that a sentence names."""


def unlike_sizes(job: Job, results: Results) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sentences on outputs that were compared in no batch, and on all other tensors.

    Args:
        job: see ``make_job``.
        results: of all batches.
    """
    never, rest = [], []
    told: set[str] = set()
    inner: dict[str, int] = {}
    for t in sorted(job.tracked, key=lambda t: t.key.kind != OUTPUT):
        met = [(m, results.tensors[t.key, m]) for m in t.others if (t.key, m) in results.tensors]
        times = {m: s.other_size for m, s in met if s.other_size}
        if not times or t.source in told:
            continue
        told.add(t.source)
        if t.key.kind != OUTPUT:
            inner[t.source] = max(times.values())
        elif any(n == results.batches for n in times.values()):
            never.append(_of_output(t.source, times, results))
        else:
            rest.append(f"{_of_output(t.source, times, results)} Its figures are those of the other batches.")
    if inner:
        rest.append(_of_inner(inner, results))
    return tuple(never), tuple(rest)


def _of_output(name: str, times: dict[str, int], results: Results) -> str:
    smaller = " A batch size of 1 compares the samples that have as many." if results.batches < results.samples else ""
    return (
        f"Output '{name}' has another number of elements than in the source in {_some(times, results)}, in "
        f"{listed_models(list(times))}. Numbers decide how many it has, and a step of int8 may tip them.{smaller}"
    )


def _of_inner(times: dict[str, int], results: Results) -> str:
    named = ", ".join(f"'{name}'" for name in list(times)[:NAMED])
    more = f" and {len(times) - NAMED} more" if len(times) > NAMED else ""
    return (
        f"{counted(len(times), 'tensor')} at layers had another number of elements than in the source in "
        f"{_some(times, results)}, which their figures leave out, as numbers decide how many: {named}{more}."
    )


def _some(times: dict[str, int], results: Results) -> str:
    """In how many batches at most, by model or tensor."""
    fewer = "up to " if len(set(times.values())) > 1 else ""
    all_of_them = counted(results.batches, "batch", "batches")
    if results.batches != results.samples:
        all_of_them += f" ({counted(results.samples, 'sample')})"
    return f"{fewer}{max(times.values())} of {all_of_them}"
