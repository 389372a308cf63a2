"""Ctrl-C as a request: the batch that is running ends, and what is known so far stays whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STDERR = 2


@contextmanager
def stop_request() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed since; a second one raises KeyboardInterrupt at once.

    Python delivers signals to the main thread: in another one the answer stays no.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        with suppress(OSError):  # not print: it may be what was interrupted
            os.write(STDERR, b"amct_onnx: stopping behind this batch; Ctrl-C again stops at once.\n")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
