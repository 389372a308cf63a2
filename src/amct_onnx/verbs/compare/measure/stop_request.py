"""Ctrl-C, SIGTERM and SIGHUP as requests: the batch that is running ends, and what is known so far stays whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STDERR = 2
_last: list[int] = []
"""The signal that asked the last run to stop, if one did."""


def asked_by() -> int | None:
    """Number of the signal that asked the last run to stop."""
    return _last[0] if _last else None


@contextmanager
def stop_request() -> Iterator[Callable[[], bool]]:
    """Whether one of the signals came since; after it, Ctrl-C raises KeyboardInterrupt at once.

    A signal that is ignored stays ignored (nohup), and SIGTERM and SIGHUP stay with a program that handles them. These
    two may come twice: a terminal that closes, and service managers, send several. Python delivers signals to the main
    thread: in another one the answer stays no.
    """
    _last.clear()
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if _last and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not _last:
            _last.append(number)
            with suppress(OSError):  # not print: it may be what was interrupted
                os.write(STDERR, b"amct_onnx: stopping behind this batch; Ctrl-C again stops at once.\n")

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = [n for n, handler in before.items() if _may_be_taken(n, handler)]
    try:
        for number in ours:
            signal.signal(number, ask)
        yield lambda: bool(_last)
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _may_be_taken(number: int, handler: object) -> bool:
    if handler in (signal.SIG_IGN, None):
        return False
    # the command's own handler stands behind one
    package = __name__.partition(".")[0]
    return (
        number == signal.SIGINT or handler == signal.SIG_DFL or getattr(handler, "__module__", "").startswith(package)
    )
