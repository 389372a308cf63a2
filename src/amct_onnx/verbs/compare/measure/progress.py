"""What a run knows so far, and how that gets into its state file and out again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from amct_onnx.common.log import get_logger
from amct_onnx.errors import DataError, OutputError
from amct_onnx.verbs.compare.job import Job
from amct_onnx.verbs.compare.measure.batch import Batch, Results
from amct_onnx.verbs.compare.measure.state_file import DataDigest, State, write_state
from amct_onnx.verbs.compare.measure.state_place import run_of

SAVE_SECONDS = 30.0
"""Between two writes of the state."""
Tell = Callable[[int, int | None], None]


@dataclass
class Progress:
    """Of one run.

    Attributes:
        job, settings, key: what the run is, see ``state_place.run_key``.
        path: of its state.
        total: samples in the data, or None.
        tell: called with samples done and of all.
        results, digest, seconds: of the batches so far.
        saved: whether the file holds them all.
    """

    job: Job
    settings: Mapping[str, str]
    key: str
    path: Path
    total: int | None
    tell: Tell
    results: Results = field(default_factory=Results)
    digest: DataDigest = field(default_factory=DataDigest)
    seconds: float = 0.0
    warned: bool = False
    _before: State | None = None
    _kept: int = 0
    _runs: set[str] = field(default_factory=set)

    @property
    def saved(self) -> bool:
        """See above."""
        return 0 < self.results.batches <= self._kept

    def start_from(self, state: State) -> None:
        """Continue the run whose state lies at ``path``: from now on it is this run's."""
        self._before, self.results, self.seconds = state, state.results, state.seconds
        self._kept = state.results.batches
        self._runs = {run_of(self.path) or ""}

    def missing(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches that are not in the results; the others must be those that were run.

        Raises:
            DataError: The data are others than those of the run that is continued.
        """
        done = self.results.batches if self._before is not None else 0
        number = 0
        for number, batch in enumerate(batches, 1):
            if number > done:
                yield batch
                continue
            self.digest.add(batch)
            if number == done:
                self._same_data()
        if number < done:
            self._same_data()

    def _same_data(self) -> None:
        assert self._before is not None
        if self.digest.text != self._before.data:
            raise DataError(f"{self.path}: was made with other data or labels. Give the same, or run without --resume.")

    def run(self, parts: Iterable[tuple[Batch, Results]], stopped: Callable[[], bool]) -> bool:
        """Merge parts in their order until there are none, or Ctrl-C; whether there are none."""
        begun = saved = time.monotonic()
        before = self.seconds
        self.tell(self.results.samples, self.total)
        for batch, part in parts:
            self.results.merge(part)
            self.digest.add(batch)
            now = time.monotonic()
            self.seconds = before + now - begun
            self.tell(self.results.samples, self.total)
            if now - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
            if stopped():
                break
        else:
            if not stopped():
                return True
        self.save()
        return False

    @contextmanager
    def saved_on_error(self) -> Iterator[None]:
        """What was run until an error stays in the state file: hours may lie behind a report that cannot be written."""
        try:
            yield
        except Exception:
            self.save()
            if self.saved:
                get_logger("Compare").warning(
                    "%s: holds the %d samples that were run; the same command with --resume continues.",
                    self.path,
                    self.results.samples,
                )
            raise

    def save(self) -> None:
        """Write the state when the file does not hold all batches; else the digest may be that of wrong data.

        A failure is told once, and no reason to end the run: its report does not need the state.
        """
        if self.results.batches <= self._kept:
            return
        state = State(self.results, self.digest.text, self.seconds)
        try:
            if self._is_others():
                raise OutputError(f"{self.path}: was written by another run meanwhile. Give each its --state_file.")
            write_state(self.path, self.job, self.settings, state, run=self.key)
        except OutputError as error:
            self.warn(error)
            return
        self._kept = self.results.batches
        self._runs = {self.key}

    def warn(self, error: OutputError) -> None:
        """Say once that there will be nothing to resume."""
        if not self.warned:
            get_logger("Compare").warning("The run goes on, but an interruption would lose what was run: %s", error)
        self.warned = True

    def discard(self) -> None:
        """Remove the file, if it is this run's: there is nothing to continue."""
        if not self._kept or self._is_others():
            return
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            get_logger("Compare").warning("%s: cannot be removed (%s). Remove it.", self.path, error.strerror)

    def _is_others(self) -> bool:
        run = run_of(self.path)
        return run is not None and run not in self._runs | {self.key}
