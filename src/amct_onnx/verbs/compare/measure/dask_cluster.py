"""Batches on the workers of a Dask cluster, results in the order of the batches.

A task holds its batch, the models are the result of a task of their own: whatever a lost worker held is computed again
elsewhere. Each task compares the worker's libraries and code with the client's, and the client compares what the answer
says it was made with: a worker that differs ends the run, whenever it joined. The cluster is trusted: Dask sends
pickles.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import islice
from typing import Any

from amct_onnx.common.versions import deciding_versions
from amct_onnx.errors import AmctError, SettingError
from amct_onnx.verbs.compare.job import Job
from amct_onnx.verbs.compare.measure.batch import Batch, Results, Runner
from amct_onnx.verbs.compare.measure.dask_watch import Watch

CONNECT_SECONDS = 10
CLOSE_SECONDS = 10.0
"""Waited for a cluster to take leave: one that hangs must not hold the report back."""
PROBE_SECONDS = 10.0
"""Waited for the workers to say what they are, when one of them has failed."""
AHEAD = 2
"""Batches on their way for each thread of the workers; what bounds the memory of client and scheduler."""
POLL_SECONDS = 0.5
FETCH_SECONDS = 5.0
"""For one try to fetch a batch's statistics, some hundred kB."""

_held = threading.local()


@dataclass(frozen=True)
class Answer:
    """What a task gives: the statistics of its batch, the worker's address, and the versions they were made with."""

    results: Results
    worker: str
    versions: dict[str, str]


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
        SettingError: Dask is not installed, the cluster cannot be reached, fails or falls silent, no worker is left, or
            one of them has other versions or other code.
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
    watch = Watch(client, address)
    under_way: deque[tuple[Batch, Any]] = deque()
    try:
        yield from _in_order(client, watch, job, batches, stopped, under_way)
    except (AmctError, GeneratorExit):
        raise
    except (Exception, CancelledError) as error:  # Dask's classes share no base
        odd = _odd_workers(client, watch)
        raise SettingError(
            f"--dask {address}: {odd or 'the cluster'} failed ({type(error).__name__}: {error}). Look at the workers' "
            "logs, then continue with --resume."
        ) from error
    finally:
        watch.stop()
        _within(CLOSE_SECONDS, lambda: _leave(client, [f for _, f in under_way]))


def _in_order(
    client: Any,
    watch: Watch,
    job: Job,
    batches: Iterable[Batch],
    stopped: Callable[[], bool],
    under_way: deque[tuple[Batch, Any]],
) -> Iterator[tuple[Batch, Results]]:
    source = iter(batches)
    wanted = deciding_versions()
    while not watch.threads:
        if stopped():
            return
        watch.wait(POLL_SECONDS)
    sent_job = client.submit(_same, job, pure=False)
    while True:
        window = AHEAD * max(1, watch.threads)
        for batch in islice(source, max(0, window - len(under_way))):
            under_way.append((batch, client.submit(run_checked_batch, sent_job, batch, wanted, pure=False)))
        if not under_way:
            return
        batch, future = under_way[0]
        done = threading.Event()
        future.add_done_callback(lambda _, done=done: done.set())
        while not done.wait(POLL_SECONDS):
            if stopped():
                return
            watch.check()
        answer = _fetched(future, watch, stopped)
        if answer is None:
            return
        _check_answer(answer, wanted)
        yield batch, answer.results
        under_way.popleft()


def _fetched(future: Any, watch: Watch, stopped: Callable[[], bool]) -> Any:
    """What a finished task gave; None when Ctrl-C ended the wait. The worker that holds it may freeze just now."""
    from distributed import TimeoutError as Late

    while True:
        try:
            return future.result(timeout=FETCH_SECONDS)
        except Late:
            if future.status == "error":  # the worker left with the result, and the batch failed on another one
                raise future.exception(timeout=FETCH_SECONDS) from None
        if stopped():
            return None
        watch.check()


def _same(job: Job) -> Job:
    """The job as a result, which Dask copies to each worker once."""
    return job


def run_checked_batch(job: Job, batch: Batch, wanted: Mapping[str, str]) -> Answer:
    """On a worker: one batch; the sessions stay open in each of its threads.

    Raises:
        SettingError: The worker differs from the client.
        AmctError: What the batch raised.
    """
    import distributed

    worker = str(distributed.get_worker().address)
    here = deciding_versions()
    _check_same(worker, here, wanted)
    runner: Runner | None = getattr(_held, "runner", None)
    if runner is None or runner.job.key != job.key:
        _held.runner = runner = Runner(job)
    return Answer(runner.run(batch), worker, here)


def _check_answer(answer: Any, wanted: Mapping[str, str]) -> None:
    """A worker whose code does not check itself gives something else, or tells of itself."""
    if not isinstance(answer, Answer):
        raise SettingError(
            "A Dask worker has other code of amct_onnx: its answer has another form. Install the same version there, "
            "then continue with --resume."
        )
    _check_same(answer.worker, answer.versions, wanted)


def _check_same(worker: str, there: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name in wanted:
        if there.get(name) != wanted[name]:
            raise SettingError(
                f"Dask worker {worker} has {name} {there.get(name)}, the client {wanted[name]}: its batch does not "
                "count. Install the same versions there, or stop it, then continue with --resume."
            )


def _odd_workers(client: Any, watch: Watch) -> str:
    """The workers that do not say that they are as the client, in words; "" when all do."""
    wanted = deciding_versions()
    probes: dict[str, Any] = {}

    def ask() -> None:
        for worker in watch.workers:
            probes[worker] = client.submit(deciding_versions, workers=[worker], pure=False)
        for probe in probes.values():
            probe.exception(timeout=PROBE_SECONDS)

    _within(PROBE_SECONDS, ask)
    odd = [w for w, p in probes.items() if p.status != "finished" or p.result(timeout=PROBE_SECONDS) != wanted]
    return (
        f"worker {', '.join(odd)}, which has not this version and code of amct_onnx or does not answer," if odd else ""
    )


def _leave(client: Any, futures: list[Any]) -> None:
    client.cancel(futures)
    client.close(timeout=CLOSE_SECONDS)


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do what may never return, or fail, on a cluster that is broken: the run does not wait for it any longer."""

    def quietly() -> None:
        try:
            work()
        except BaseException:  # of any of Dask's layers; the run has its own error by now
            return

    thread = threading.Thread(target=quietly, name="leave Dask", daemon=True)
    thread.start()
    thread.join(seconds)
