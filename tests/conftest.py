"""Every test runs in its own folder, where the log may be opened; fixtures of more than one file."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

from amct_onnx import AMCT_SO
from support.comparison_cases import DIGITS, SMALL, Case, converted

HERE = Path(__file__).parent
OWN_MEMORY = ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Set by run_tests for the processes of the tests themselves."""
WITH_CHILD = ("cli", "files", "program", "verbs/atc", "verbs/convert", "verbs/simulate")
"""Folders whose conversions put their outputs in place as a user's do."""


def pytest_configure() -> None:
    """Let Ctrl-C be heard also where a shell runs the tests in its background: it starts these with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep the collector from walking, all along the run, over what was imported and collected: that stays.

    The commands that tests start get the memory that a user's have.
    """
    gc.collect()
    gc.freeze()
    # the threads of one session do not wait busily while another one runs; no number depends on it
    AMCT_SO.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name in OWN_MEMORY:
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # the test runner sets it for its processes


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs are put in place by the test's process, as on a system that starts no further one.

    To fork a process as large as that of the tests costs as much as a small conversion.
    """
    monkeypatch.delattr(os, "fork")


@pytest.fixture(autouse=True)
def _one_process_for_work_on_graphs(request: pytest.FixtureRequest) -> None:
    folder = request.path.relative_to(HERE).parent.as_posix()
    if not folder.startswith(WITH_CHILD):
        request.getfixturevalue("one_process")


@pytest.fixture
def digits(tmp_path: Path) -> Case:
    """A real model, converted into the test's folder, with its data."""
    return converted(DIGITS, tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Case:
    """A smaller one, which takes half of the time."""
    return converted(SMALL, tmp_path)
