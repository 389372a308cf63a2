"""Batches on the workers of a Dask cluster, results in the order of the batches.

A task holds its batch, the models are the result of a task of their own: whatever a lost worker held is computed again
elsewhere. The cluster is trusted: Dask sends pickles.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from amct_onnx.comparison.batch import Batch, Results, Runner
from amct_onnx.comparison.job import Job
from amct_onnx.errors import AmctError, SettingError
from amct_onnx.versions import DECIDING, library_versions

CONNECT_SECONDS = 10
WORKER_SECONDS = 60
"""Waited for the first worker."""
AHEAD = 2
"""Batches on their way for each thread of the workers; what bounds the memory of client and scheduler."""
POLL_SECONDS = 0.5

_held = threading.local()


def run_on_dask(
    job: Job, batches: Iterable[Batch], address: str, stopped: Callable[[], bool]
) -> Iterator[tuple[Batch, Results]]:
    """Each batch and its statistics, in order.

    Args:
        job: what to compare.
        batches: read as the workers take them.
        address: of the scheduler.
        stopped: asked while waiting; batches under way are then given up.

    Raises:
        SettingError: Dask is not installed, the cluster cannot be reached, differs in versions, or fails.
        AmctError: What a batch raised on a worker.
    """
    try:
        import distributed
    except ImportError as error:
        raise SettingError("--dask needs Dask. Install it with: pip install 'amct_onnx[dask]'.") from error
    try:
        client: Any = distributed.Client(  # type: ignore[no-untyped-call]
            address, timeout=CONNECT_SECONDS, set_as_default=False
        )
    except Exception as error:  # addresses are parsed and dialled by many layers
        raise SettingError(f"--dask {address}: no scheduler answers ({error}). Check its address.") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
            _check_versions(client, address)
            yield from _in_order(client, job, batches, stopped)
        except (AmctError, GeneratorExit):
            raise
        except Exception as error:  # Dask's classes share no base
            raise SettingError(
                f"--dask {address}: the cluster failed ({type(error).__name__}: {error}). Look at the workers' logs; "
                "--resume continues from the last state."
            ) from error


def _in_order(
    client: Any, job: Job, batches: Iterable[Batch], stopped: Callable[[], bool]
) -> Iterator[tuple[Batch, Results]]:
    source = iter(batches)
    sent_job = client.submit(_same, job, pure=False)
    under_way: deque[tuple[Batch, Any]] = deque()
    try:
        while True:
            window = AHEAD * max(1, sum(client.nthreads().values()))
            for batch in islice(source, max(0, window - len(under_way))):
                under_way.append((batch, client.submit(run_batch, sent_job, batch, pure=False)))
            if not under_way:
                return
            batch, future = under_way[0]
            done = threading.Event()
            future.add_done_callback(lambda _, done=done: done.set())
            while not done.wait(POLL_SECONDS):
                if stopped():
                    return
            yield batch, future.result()
            under_way.popleft()
    finally:
        client.cancel([f for _, f in under_way])


def _same(job: Job) -> Job:
    """The job as a result, which Dask copies to each worker once."""
    return job


def run_batch(job: Job, batch: Batch) -> Results:
    """On a worker: one batch; the sessions stay open in each of its threads."""
    runner: Runner | None = getattr(_held, "runner", None)
    if runner is None or runner.job.key != job.key:
        _held.runner = runner = Runner(job)
    return runner.run(batch)


def _check_versions(client: Any, address: str) -> None:
    here = library_versions()
    for worker, there in client.run(library_versions).items():
        for name in DECIDING:
            if there.get(name) != here[name]:
                raise SettingError(
                    f"--dask {address}: worker {worker} has {name} {there.get(name)}, here it is {here[name]}. Install "
                    "the same versions."
                )
