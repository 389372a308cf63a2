"""Which axis of each input counts the samples: the first one, unless the model names another alike in every input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amct_onnx.common.arrays import Array
from amct_onnx.data.input_spec import InputSpec


def sample_axes(inputs: Sequence[InputSpec]) -> dict[str, int] | None:
    """The axis of samples by input, where feeds may be cut and joined along it; None where feeds stay as they are.

    It is the first one when every input leaves that free. Else, as with the states of a recurrent layer, it is the free
    dimension whose name stands once in each input.

    Args:
        inputs: of the model; a free dimension is its name.
    """
    if all(i.shape and i.batch is None for i in inputs):
        return {i.name: 0 for i in inputs}
    names = [n for i in inputs[:1] for n in i.shape if isinstance(n, str)]
    for name in names:
        if all(i.shape.count(name) == 1 for i in inputs):
            return {i.name: i.shape.index(name) for i in inputs}
    return None


def samples_of(feed: Mapping[str, Array], axes: Mapping[str, int] | None) -> dict[str, int]:
    """How many samples each input of a feed holds; scalars hold none.

    Args:
        feed: arrays by input.
        axes: see ``sample_axes``; None counts the first axis.
    """
    return {n: v.shape[axes[n] if axes else 0] for n, v in feed.items() if v.ndim}
