"""A comparison that is interrupted, and what of its report does not depend on time."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amct_onnx.verbs.compare.measure.batch import Batch, Results, Runner


def figures(file: Path) -> dict[str, Any]:
    """All of a report but its times."""
    content = json.loads(file.read_text(encoding="utf-8"))
    return {k: v for k, v in content.items() if k not in ("created", "seconds", "settings")}


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Press Ctrl-C while a batch runs."""
    real: Callable[[Runner, Batch], Results] = Runner.run

    def run(self: Runner, batch: Batch) -> Results:
        if batch.number == number:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, batch)

    monkeypatch.setattr(Runner, "run", run)
