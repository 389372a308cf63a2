"""Errors of each output channel: along the operator's own axis, in LSB, many channels together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amct_onnx.plan.ledger import LayerEntry
from amct_onnx.plan.next_quantizers import Passage
from amct_onnx.verbs.compare.job import Tracked
from amct_onnx.verbs.compare.key import LAYER, Key
from amct_onnx.verbs.compare.pairing import Ends, Paired
from amct_onnx.verbs.compare.present.channels import MAX_GROUPS, channel_errors


def errors_of(
    op_type: str, own: np.ndarray, other: np.ndarray, lsb: float | None = None, passage: Passage | None = None
) -> Any:
    pair = Paired(LayerEntry("layer", op_type, "converted", output_scale=lsb), Ends("x", "y"), None, None)
    job: Any = SimpleNamespace(tracked=(Tracked(Key(LAYER, 0), "y", {"fake-quant": "z"}, lsb, passage=passage),))
    return channel_errors(job, (pair,), {"source": {"y": own}, "fake-quant": {"z": other}}).get(0, ())


@pytest.mark.parametrize(("op_type", "axis"), [("Conv", 1), ("MatMul", -1)])
def test_each_channel_has_its_mean_error_in_lsb(op_type: str, axis: int) -> None:
    own = np.zeros((2, 3, 4, 3), np.float32)
    other = np.moveaxis(np.moveaxis(own.copy(), axis, -1) + np.asarray([0.5, -2.0, 1.0], np.float32), -1, axis)
    (found,) = errors_of(op_type, own, other, lsb=0.25)
    assert found.errors == (2.0, 8.0, 4.0)
    assert (found.model, found.channels, found.together, found.worst) == ("fake-quant", 3, 1, 1)


def test_neighbours_of_many_channels_stand_together() -> None:
    """Of each group the largest error counts; the last group is smaller."""
    sizes = np.arange(2 * MAX_GROUPS + 5, dtype=np.float32)
    (found,) = errors_of("Gemm", np.zeros((2, sizes.size), np.float32), np.tile(sizes, (2, 1)))
    assert (found.channels, found.together, found.worst) == (sizes.size, 3, sizes.size - 1)
    assert len(found.errors) == 45 <= MAX_GROUPS
    assert found.errors[:2] == (2.0, 5.0) and found.errors[-1] == sizes.size - 1


def test_what_the_next_quantizer_clips_is_no_error() -> None:
    other = np.asarray([[2.0, 300.0, -5.0, np.inf]], np.float32)
    (found,) = errors_of("Gemm", np.zeros((1, 4), np.float32), other, 1.0, Passage(0.0, 255.0, 255.0))
    assert found.errors == (2.0, 255.0, 0.0, None)


def test_what_is_not_finite_has_no_figure_and_is_the_worst() -> None:
    other = np.asarray([[1.0, np.nan, 2.0]], np.float32)
    (found,) = errors_of("Gemm", np.zeros((1, 3), np.float32), other)
    assert found.errors == (1.0, None, 2.0) and found.worst == 1


def test_other_operators_and_vectors_have_no_channels() -> None:
    vector = np.zeros(4, np.float32)
    assert errors_of("MatMul", vector, vector) == ()
    assert errors_of("LSTM", vector[None], vector[None]) == ()
