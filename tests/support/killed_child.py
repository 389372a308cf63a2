"""Run something in a process that is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def in_killed_child(run: Callable[[], None], seconds: float | None = None) -> bool:
    """Run in a forked process, killed after some time if it does not do that itself; whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            run()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WIFSIGNALED(status), status
    return status == 0
