"""Ctrl-C, SIGTERM and SIGHUP end a command once: a second one must not end its cleaning up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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

    A signal is left alone when it is ignored (by nohup, in a background job) or handled by somebody else; all are in
    another thread than the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    ours = {number: before for number, before in usual.items() if signal.getsignal(number) is before}

    def end(number: int, frame: FrameType | None) -> None:
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
