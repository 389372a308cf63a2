"""Every test runs in its own folder, where the log may be opened; fixtures of more than one file."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from support.comparison_cases import DIGITS, SMALL, Case, converted


def pytest_collection_finish() -> None:
    """Keep the collector from walking, all along the run, over what was imported and collected: that stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # the test runner sets it for its processes


@pytest.fixture
def digits(tmp_path: Path) -> Case:
    """A real model, converted into the test's folder, with its data."""
    return converted(DIGITS, tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Case:
    """A smaller one, which takes half of the time."""
    return converted(SMALL, tmp_path)
