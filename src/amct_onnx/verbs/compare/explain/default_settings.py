"""What a user would have seen who opens the source with ONNX Runtime's default settings: possibly a false witness."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.verbs.compare.job import Tracked
from amct_onnx.verbs.compare.measure.accuracy import is_classifier, ranks
from amct_onnx.verbs.compare.measure.batch import Batch
from amct_onnx.verbs.compare.measure.sessions import open_default
from amct_onnx.verbs.compare.measure.statistics import SourceTensor
from amct_onnx.verbs.compare.present.figures import figure, percent
from amct_onnx.verbs.compare.present.verdict import FLOAT_ROUNDING_DB


def default_settings_witness(
    model_file: str | os.PathLike[str], outputs: Sequence[Tracked], pinned: Sequence[Array], batch: Batch
) -> str:
    """A sentence when default settings change the source's outputs by more than float rounding, else "".

    Args:
        model_file: the source as it was given.
        outputs: of the job, in the order of the graph.
        pinned: what they are under pinned settings.
        batch: the batch that was run.
    """
    try:
        found = open_default(model_file).run(None, dict(batch.feeds))
    except UnsupportedModelError:
        return ""  # nobody can have seen a figure of it
    except Exception:  # onnxruntime's classes share no base: a fused kernel may refuse what single nodes take
        return "ONNX Runtime cannot run the source with default settings; with pinned ones it can."
    for tracked, right in zip(outputs, pinned, strict=True):
        seen = found[tracked.key.index]
        if seen.size != right.size:
            continue
        shift = 0 if seen.dtype.kind == "f" else tracked.shift
        values = right.astype(np.int64) - shift if shift else right
        other = seen.astype(np.int64) - shift if shift else seen
        statistics = SourceTensor(values).compare(other, tracked.lsb, output=True)
        figures = statistics.difference("default", tracked.lsb)
        if figures.exact or (figures.sqnr_db is not None and figures.sqnr_db >= FLOAT_ROUNDING_DB):
            continue
        size = f"{figure(figures.max_lsb)} LSB" if figures.max_lsb is not None else figure(figures.max_abs or 0.0)
        off = (
            f", {percent(figures.share_lsb, 2)} of the values by 1 LSB or more" if figures.share_lsb is not None else ""
        )
        answers = ""
        if is_classifier(right, batch.labels) and batch.labels is not None:
            labels = batch.labels.reshape(-1)
            with_default, with_pins = (int(np.count_nonzero(ranks(v, labels) == 0)) for v in (seen, right))
            if with_default != with_pins:
                answers = f"; {with_default} instead of {with_pins} of {len(labels)} answers are right"
        samples = "sample" if batch.samples == 1 else f"{batch.samples} samples"
        return (
            f"False witness: with ONNX Runtime's default settings the source's own output '{tracked.source}' differs "
            f"on this CPU by up to {size}{off}{answers} (first {samples})."
        )
    return ""
