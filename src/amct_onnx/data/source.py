"""The one interface of every kind of data: feeds that can be iterated again from any position, with their labels."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from amct_onnx.common.arrays import Array

AnyData = str | os.PathLike[str] | Array | Mapping[str, Array] | Sequence[Mapping[str, Array]]
"""Data as ``open_data`` takes them: a path, or arrays in memory."""
Feed = dict[str, Array]
Labelled = tuple[Feed, Array | None]
"""A feed, and one label per sample in it when there are labels."""


IN_MEMORY = "arrays in memory"


class DataSource(abc.ABC):
    """Feeds of a model: arrays by input name, first axis = samples.

    Attributes:
        count: number of feeds; None when it shows only at the end.
    """

    count: int | None = None

    @property
    def fed(self) -> DataSource:
        """The feeds as a board is given them: before what the device does with images (AIPP), else these."""
        return self

    @abc.abstractmethod
    def labelled(self, start: int = 0) -> Iterator[Labelled]:
        """The feeds from a position on, each with its labels.

        Raises:
            DataError: A file or its content cannot be used.
        """

    def __iter__(self) -> Iterator[Feed]:
        """The feeds alone, from the first one on."""
        return (feed for feed, _ in self.labelled())


class Repeatable(DataSource):
    """A source that can only start from the first feed: feeds before the wanted position are read and dropped."""

    def labelled(self, start: int = 0) -> Iterator[Labelled]:
        """See ``DataSource``."""
        return islice(self._all(), start, None)

    @abc.abstractmethod
    def _all(self) -> Iterator[Labelled]: ...


def name_of(data: AnyData | DataSource) -> str:
    """Data as a report names them: their path, or what kind they are."""
    if isinstance(data, (str, os.PathLike)):
        return os.fspath(data)
    return type(data).__name__ if isinstance(data, DataSource) else IN_MEMORY
