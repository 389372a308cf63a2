"""The progress bar of every verb."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Bar:
    """A bar on the screen.

    Attributes:
        stage: shows what is being done now.
    """

    def __init__(self, count: Callable[[int, int | None], None], stage: Callable[[str], None]) -> None:
        self.count, self.stage = count, stage

    def __call__(self, done: int, total: int | None) -> None:
        """Show how far the work is."""
        self.count(done, total)


@contextmanager
def progress_bar(label: str, *, in_bytes: bool = False, unit: str = "") -> Iterator[Bar | None]:
    """A bar on stderr when it is a terminal, fed with (done, total); it moves to and fro while total is unknown.

    Nothing that depends on the total is shown then, and a new stage starts without one.


    Args:
        label: what is done.
        in_bytes: done and total are bytes: they are shown with their speed.
        unit: what done and total count: they are shown with their rate and the time left.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units a second, over the last half minute."""

        def render(self, task: Task) -> Text:
            """Nothing before there is a rate."""
            speed = task.finished_speed or task.speed
            return Text(f"{unit}, {speed:,.3g}/s" if speed else unit, style="progress.data.speed")

    class Known(ProgressColumn):
        """A column that says nothing before the total is known."""

        def __init__(self, column: ProgressColumn) -> None:
            super().__init__()
            self._column = column

        def render(self, task: Task) -> Any:
            """What the column renders."""
            return self._column.render(task) if task.total is not None else ""

    terminal: Any = _Terminal(sys.stderr)
    counted: tuple[ProgressColumn, ...] = (TaskProgressColumn(), TimeRemainingColumn())
    if in_bytes:
        counted = (DownloadColumn(), TransferSpeedColumn())
    elif unit:
        counted = (MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    begun: tuple[ProgressColumn, ...] = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*begun, *map(Known, counted), console=Console(file=terminal, soft_wrap=True), transient=True) as bar:
        task = bar.add_task(label, total=None)

        def begin(what: str) -> None:
            bar.tasks[0].total = None
            bar.reset(task, description=what)
            bar.refresh()  # the stage may hold the interpreter

        yield Bar(lambda done, total: bar.update(task, completed=done, total=total), begin)


class _Terminal:
    """A stream that ignores writes once its terminal is gone, so that the work goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError):
            self._stream.flush()
