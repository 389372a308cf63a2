"""The one interface of every kind of data: feeds that can be iterated again from any position, with their labels."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from itertools import islice

from amct_onnx.common.arrays import Array

Feed = dict[str, Array]
Labelled = tuple[Feed, Array | None]
"""A feed, and one label per sample in it when there are labels."""


class DataSource(abc.ABC):
    """Feeds of a model: arrays by input name, first axis = samples.

    Attributes:
        count: number of feeds; None when it shows only at the end.
    """

    count: int | None = None

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
