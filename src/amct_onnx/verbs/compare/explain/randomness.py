"""Whether the source itself is random, before any model is held to it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.files.read import read_model
from amct_onnx.graph.random_nodes import draw, random_nodes
from amct_onnx.verbs.compare.measure.batch import Batch, Runner


def randomness(model: str | os.PathLike[str], runner: Runner, first: Batch, outputs: Mapping[str, Array]) -> str:
    """A sentence when the source gives other outputs for the same batch, else "".

    Args:
        model: the source, whose random nodes are named.
        runner: with the session of the source.
        first: the first batch.
        outputs: the source's outputs for it, by name.
    """
    again = runner.outputs(list(outputs), first)
    if all(_same(outputs[name], again[name]) for name in outputs):
        return ""
    drawing = random_nodes(read_model(model))
    why = draw(drawing) if drawing else "no node is known to draw random numbers; a kernel may add in another order"
    return f"The source gives other outputs for the same data each time it runs: {why}."


def _same(one: Array, other: Array) -> bool:
    """Bit for bit; NaN equals NaN."""
    if one.dtype.kind == "f":
        return np.array_equal(one, other, equal_nan=True)
    return np.array_equal(one, other)
