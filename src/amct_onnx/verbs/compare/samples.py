"""The data of a comparison, as batches that the models can take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.source import AnyData, DataSource, name_of
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.measure.batch import Batch, Runner
from amct_onnx.verbs.compare.measure.batches import cut_batches, samples_in


class Samples:
    """A data set, cut into batches.

    Args:
        data: as the user gave it.
        source: the same, opened.
        inputs: of the model.
        batch_size: see ``cut_batches``.

    Attributes:
        name: of the data, for people.
        source: as given.
        total: samples in the data, None when that shows only at the end.
    """

    def __init__(
        self,
        data: AnyData | DataSource,
        source: DataSource,
        inputs: Sequence[InputSpec],
        batch_size: int,
    ) -> None:
        self.name = name_of(data)
        self.source = source
        self.total: int | None = None
        if source.count is not None:
            self.total = source.count * (inputs[0].batch or 1)
        elif isinstance(data, (str, os.PathLike)):
            self.total = samples_in(data, inputs)
        self._inputs, self._size = inputs, batch_size

    def batches(self) -> Iterator[Batch]:
        """All batches, from the beginning."""
        return cut_batches(self.source.labelled(), self._inputs, self._size)

    def begin(self) -> tuple[Batch, Iterator[Batch]]:
        """The first batch, and all batches with it.

        Raises:
            DataError: There are no samples.
        """
        batches = self.batches()
        first = next(batches, None)
        if first is None:
            raise DataError(f"{self.name}: holds no samples. Give at least one.")
        return first, chain((first,), batches)


def checked(batches: Iterable[Batch], runner: Runner, classify: bool) -> Iterator[Batch]:
    """The batches; the first one shows whether labels can be used.

    Raises:
        DataError: No output holds a row of scores for each label; NaN in the data, which no quantizer defines.
    """
    for number, batch in enumerate(batches):
        _refuse_nan(batch)
        if number == 0 and classify and not runner.classifies(batch):
            labels = batch.labels
            assert labels is not None
            raise DataError(
                f"The labels ({labels.dtype}{list(labels.shape[1:])} per sample) fit no output: top-1 needs one "
                "integer per sample and an output of shape [samples, classes]. Give --evaluator for another metric."
            )
        yield batch


def _refuse_nan(batch: Batch) -> None:
    for name, values in batch.feeds.items():
        if values.dtype.kind == "f" and values.size and np.isnan(values.min()):  # min keeps a NaN
            rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
            row = int(np.flatnonzero(np.isnan(rows).any(axis=1))[0])
            raise DataError(
                f"Input '{name}' holds NaN (batch {batch.number}, sample {row} in it): what a quantizer makes of "
                "it is not defined. Leave the sample out, or correct it."
            )
