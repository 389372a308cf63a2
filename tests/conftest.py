"""Every test runs in its own folder, where the log may be opened; fixtures of more than one file."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from support.comparison_cases import DIGITS, SMALL, Case, converted

OWN_MEMORY = ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Set by run_tests for the processes of the tests themselves."""


def pytest_collection_finish() -> None:
    """Keep the collector from walking, all along the run, over what was imported and collected: that stays.

    The commands that tests start get the memory that a user's have.
    """
    gc.collect()
    gc.freeze()
    for name in OWN_MEMORY:
        os.environ.pop(name, None)


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
