"""Watch a Dask cluster from a thread of its own: workers that vanish or freeze, a scheduler that falls silent.

Dask itself notices a connection that breaks, but gives a process that is only stopped, or a host that is cut off, five
minutes. Here a worker is silent when the scheduler has heard no heartbeat of it for ``SILENT_SECONDS``, whatever it is
computing: heartbeats come from another thread. The scheduler is then told to go on without it, and runs its tasks
elsewhere.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from amct_onnx.common.log import get_logger
from amct_onnx.errors import SettingError

SILENT_SECONDS = 60.0
"""After which a worker or the scheduler is held to be frozen; also how long a cluster may be without workers."""
LOOK_SECONDS = 1.0
RESUME = "then continue with --resume"


class Watch:
    """Looks at the cluster until it is stopped.

    Args:
        client: of the cluster; closed by its owner.
        address: of the scheduler, for messages.

    Attributes:
        workers: addresses of those that are there and heard of.
        threads: that they have together.
    """

    def __init__(self, client: Any, address: str) -> None:
        self.workers: tuple[str, ...] = ()
        self.threads = 0
        self._client, self._address = client, address
        self._heard: dict[str, tuple[float, float]] = {}
        self._answered = self._staffed = time.monotonic()
        self._stop, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch Dask", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; not waited for, since the cluster may never answer."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Wait for the next look, at most so long, then ``check``."""
        self._looked.clear()
        self._looked.wait(seconds)
        self.check()

    def check(self) -> None:
        """Tell what makes waiting useless.

        Raises:
            SettingError: The scheduler does not answer, or there is no worker left.
        """
        now = time.monotonic()
        if now - self._answered > SILENT_SECONDS:
            raise SettingError(
                f"--dask {self._address}: the scheduler has not answered for {SILENT_SECONDS:.0f} s. Look at its host, "
                f"{RESUME}."
            )
        if now - self._staffed > SILENT_SECONDS:
            raise SettingError(
                f"--dask {self._address}: there has been no worker for {SILENT_SECONDS:.0f} s. Add workers, {RESUME}."
            )

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS if self._heard else 0.05):
            try:
                self._look()
            except Exception:  # of any of Dask's layers: no answer, which ``check`` tells after a while
                continue

    def _look(self) -> None:
        told = self._client.sync(self._client.scheduler.identity)["workers"]
        now = time.monotonic()
        self._answered = now
        before = self._heard
        # clocks of two hosts differ, so it counts since when a worker's last heartbeat is the same
        self._heard = {
            name: (seen["last_seen"], before[name][1])
            if name in before and before[name][0] == seen["last_seen"]
            else (seen["last_seen"], now)
            for name, seen in told.items()
        }
        for name in before.keys() - told.keys():
            self._tell("%s is gone", name)
        silent = [n for n, (_, since) in self._heard.items() if now - since > SILENT_SECONDS]
        self.workers = tuple(n for n in told if n not in silent)
        self.threads = sum(int(told[n]["nthreads"]) for n in self.workers)
        if self.workers:
            self._staffed = now
        self._looked.set()
        for name in silent:
            self._tell(f"%s has been silent for {SILENT_SECONDS:.0f} s and is given up", name)
            del self._heard[name]
            self._client.sync(self._client.scheduler.unregister, address=name, stimulus_id=f"silent-{time.time()}")

    def _tell(self, what: str, worker: str) -> None:
        if not self._stop.is_set():
            get_logger("Compare").warning(f"Dask worker {what}; its batches go to others.", worker)
