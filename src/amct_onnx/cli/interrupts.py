"""Ctrl-C, SIGTERM and SIGHUP end a command once: a second one must not end its cleaning up."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

IMPORT_SECONDS = 0.02
"""After that long the signal that came during an import is looked at again."""
PATIENCE_SECONDS = 1.0
"""An import that takes longer is ended all the same: its file system may hang."""
IMPORT_FILE = "<frozen importlib._bootstrap>"


class Ended(KeyboardInterrupt):
    """A signal asked the command to end.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Raise Ended at the first of these signals and ignore those that follow; SIGQUIT still ends at once.

    A module that is being imported is finished first: a native one turns KeyboardInterrupt into an ImportError of its
    own, or crashes. A signal is left alone when it is ignored (by nohup, in a background job) or handled by somebody
    else; all are in another thread than the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[float] = []
    main = threading.get_ident()
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    ours = {number: before for number, before in usual.items() if signal.getsignal(number) is before}

    def end(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        if _in_import(frame) and asked[-1] - asked[0] < PATIENCE_SECONDS:
            again = threading.Timer(IMPORT_SECONDS, signal.pthread_kill, (main, number))
            again.daemon = True
            again.start()
            return
        for other in ours:
            signal.signal(other, signal.SIG_IGN)
        raise Ended(number)

    try:
        for number in ours:
            signal.signal(number, end)
        yield
    finally:
        for number, before in ours.items():
            signal.signal(number, before)


def _in_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORT_FILE:
            return True
        frame = frame.f_back
    return False
