"""What every report can do: one sentence, JSON, a table on a screen and in a notebook."""

from __future__ import annotations

import html
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from amct_onnx.common.json_values import JsonReport

if TYPE_CHECKING:
    from amct_onnx.common.console import Laid, Part

MAX_REPR = 250
"""Characters of the summary in a repr."""
MAX_HTML = 64_000
"""Characters that a report puts into the cell of a notebook."""


class Shown(ABC):
    """A result that rich and notebooks show as the command line does.

    Attributes:
        SCREEN: module whose ``parts`` draws it. It is imported when a report is shown: rich takes its time.
    """

    SCREEN: ClassVar[str]

    @abstractmethod
    def summary(self) -> str:
        """The result in a sentence or two."""

    def __repr__(self) -> str:
        """Class and the beginning of the summary: a report may hold 100,000 scales."""
        return f"<{type(self).__name__}: {textwrap.shorten(self.summary(), MAX_REPR, placeholder=' …')}>"

    def __rich__(self) -> Laid:
        """For ``rich.print``."""
        from amct_onnx.common.console import Laid

        return Laid(self._parts)

    def _repr_html_(self) -> str:
        """For notebooks; the summary alone when the tables exceed MAX_HTML."""
        from amct_onnx.common.console import html_of

        text = html_of(self._parts)
        return text if len(text) <= MAX_HTML else f"<pre>{html.escape(self.summary())}</pre>"

    def _parts(self, width: int) -> Iterable[Part]:
        parts: Iterable[Part] = import_module(self.SCREEN).parts(self, width)
        return parts


class ShownReport(Shown, JsonReport):
    """A report that is a JSON document as well."""
