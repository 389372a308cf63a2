"""Exit codes of every verb."""

from __future__ import annotations

import signal

EXIT_DONE = 0
"""The work was done."""
EXIT_CHECK_FAILED = 1
"""The work was done but its check failed: --strict and a layer stayed float, ``check`` found an error, ..."""
EXIT_BAD_INPUT = 2
"""Usage, or an input or output that cannot be used; nothing was written."""
EXIT_HANGUP = 129
"""SIGHUP: the terminal was closed."""
EXIT_INTERRUPTED = 130
"""Ctrl-C."""
EXIT_TERMINATED = 143
"""SIGTERM."""
EXIT_BROKEN_PIPE = 141
"""The reader of stdout ended early, as in ``| head``; files were written all the same."""


def exit_code_of(number: int | None) -> int:
    """Exit code of a command that a signal ended; None is Ctrl-C."""
    codes: dict[int | None, int] = {signal.SIGHUP: EXIT_HANGUP, signal.SIGTERM: EXIT_TERMINATED}
    return codes.get(number, EXIT_INTERRUPTED)
