"""Batches on a real local Dask cluster: the same bits for any number of workers, also when one is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import onnx
import pytest

import amct_onnx
from amct_onnx.verbs.compare.measure import dask_cluster, dask_watch
from support.comparison_cases import Case
from support.float_models import without_quantizers


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as running:
        yield running


IN_ORDER = """
def collect(outputs, feeds, labels):
    return [row.argmax() + 0.25 for row in next(iter(outputs.values()))]
def score(records):
    return {"in order": sum(n * record for n, record in enumerate(records))}
"""


def figures(report: amct_onnx.CompareReport) -> dict[str, Any]:
    content = report.to_dict()
    return {k: v for k, v in content.items() if k not in ("created", "seconds", "settings")}


@pytest.mark.slow  # .ci/run runs it as well
def test_any_number_of_workers_and_a_killed_one_give_the_same_bits(
    digits: Case, cluster: distributed.LocalCluster
) -> None:
    evaluator, float_file = digits.labels.with_name("evaluator.py"), digits.labels.with_name("float.onnx")
    evaluator.write_text(IN_ORDER, encoding="utf-8")
    onnx.save(without_quantizers(digits.source), float_file)
    options: dict[str, Any] = {"labels": digits.labels, "batch_size": 4}
    options |= {"evaluator": evaluator, "float_model": float_file}
    alone = digits.compare(**options)
    assert "in order" in {m.name for m in alone.models[-1].metrics} and alone.models[-1].key == "float"
    killed = []

    def kill_one(done: int, total: int | None) -> None:
        """After some batches, in the middle of others."""
        if done >= 12 and not killed:
            with distributed.Client(cluster.scheduler_address) as client:
                killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    address = cluster.scheduler_address
    spread = digits.compare(dask=address, progress=kill_one, **options)
    assert killed and spread.settings["executor"] == f"Dask, {address}"
    assert figures(spread) == figures(alone)
    cluster.scale(1)
    one = digits.compare(dask=address, **options)
    assert figures(one) == figures(alone)


def test_error_of_a_worker_is_the_error_of_the_run(digits: Case, cluster: distributed.LocalCluster) -> None:
    labels = np.load(digits.labels)
    labels[40] = 77
    np.save(digits.labels, labels)
    with pytest.raises(amct_onnx.DataError, match="label is 77"):
        digits.compare(labels=digits.labels, dask=cluster.scheduler_address)


def test_error_of_a_batch_that_was_run_again_is_not_hidden_by_the_wait_for_its_first_result() -> None:
    """The worker that holds a result leaves while it is fetched; the worker that runs the batch again refuses it."""

    class RunAgain:
        status = "finished"

        def result(self, timeout: float) -> None:
            self.status = "error"
            raise distributed.TimeoutError(f"timed out after {timeout} s.")

        def exception(self, timeout: float) -> amct_onnx.AmctError:
            return amct_onnx.SettingError("Dask worker tcp://b has code of amct_onnx b, the client a.")

    with pytest.raises(amct_onnx.SettingError, match="has code of amct_onnx b, the client a"):
        dask_cluster._fetched(RunAgain(), watch=None, stopped=lambda: False)  # type: ignore[arg-type]  # neither is used


@pytest.mark.slow
def test_interrupt_keeps_what_came_back(digits: Case, cluster: distributed.LocalCluster) -> None:
    options: dict[str, Any] = {"batch_size": 2, "dask": cluster.scheduler_address}

    def stop(done: int, total: int | None) -> None:
        if done >= 8:
            signal.raise_signal(signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    partial = digits.compare(progress=stop, **options)
    assert not partial.complete and 8 <= partial.samples < 64
    resumed = digits.compare(resume=True, **options)
    alone = digits.compare(batch_size=2)
    assert figures(resumed) == figures(alone)


SILENT = 4.0
"""Instead of a minute. Where six busy loops share two cores, a worker with the package imported is heard within two."""


def started(workers: int) -> distributed.LocalCluster:
    """A cluster whose workers have imported the package, which on a loaded machine keeps them silent for seconds."""
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=50,
        preload=dask_cluster.__name__,
    )


def process_of_one(cluster: distributed.LocalCluster) -> int:
    with distributed.Client(cluster.scheduler_address) as client:
        return int(next(iter(client.run(os.getpid).values())))


@pytest.mark.slow
def test_frozen_worker_is_given_up_and_its_batches_go_to_others(
    digits: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Dask alone would wait for five minutes."""
    monkeypatch.setattr(dask_watch, "SILENT_SECONDS", SILENT)
    amct_onnx.set_logging_level("warning", "error")
    frozen: list[int] = []
    with started(2) as cluster:

        def freeze_one(done: int, total: int | None) -> None:
            if done >= 8 and not frozen:
                frozen.append(process_of_one(cluster))
                os.kill(frozen[0], signal.SIGSTOP)

        try:
            found = digits.compare(batch_size=4, dask=cluster.scheduler_address, progress=freeze_one)
        finally:
            for process in frozen:
                os.kill(process, signal.SIGKILL)
    assert frozen and found.complete and figures(found) == figures(digits.compare(batch_size=4))
    assert "has been silent for 4 s and is given up; its batches go to others" in caplog.text


@pytest.mark.slow
def test_cluster_without_workers_ends_the_run_with_its_state(digits: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last worker freezes, and nobody starts another."""
    monkeypatch.setattr(dask_watch, "SILENT_SECONDS", SILENT)
    frozen: list[int] = []
    with started(1) as cluster:

        def freeze(done: int, total: int | None) -> None:
            if done >= 8 and not frozen:
                frozen.append(process_of_one(cluster))
                os.kill(frozen[0], signal.SIGSTOP)

        try:
            with pytest.raises(amct_onnx.SettingError, match=r"no worker for 4 s.*continue with resume=True"):
                digits.compare(batch_size=4, dask=cluster.scheduler_address, progress=freeze)
            assert digits.state.exists()

            def press(*_: Any) -> None:
                os.kill(os.getpid(), signal.SIGINT)

            begun = time.monotonic()
            timer = threading.Timer(1.0, press)
            timer.start()
            with pytest.raises(KeyboardInterrupt):  # nothing was run, so there is no report
                digits.compare(batch_size=8, dask=cluster.scheduler_address)
            assert time.monotonic() - begun < 20
        finally:
            for process in frozen:
                os.kill(process, signal.SIGKILL)
    resumed = digits.compare(batch_size=4, resume=True)
    assert resumed.complete and figures(resumed) == figures(digits.compare(batch_size=4))


@pytest.mark.slow
def test_frozen_scheduler_is_noticed_and_one_interrupt_ends_the_wait_for_it(
    digits: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_watch, "SILENT_SECONDS", 8.0)
    monkeypatch.setattr(dask_cluster, "CLOSE_SECONDS", 1.0)
    scheduler = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "distributed.cli.dask_scheduler",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            "s",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    worker = None
    try:
        worker, address = joined("s", None)

        def freeze(done: int, total: int | None) -> None:
            if done == 8:
                scheduler.send_signal(signal.SIGSTOP)

        with pytest.raises(
            amct_onnx.SettingError, match=r"scheduler has not answered for 8 s.*continue with resume=True"
        ):
            digits.compare(batch_size=4, dask=address, progress=freeze)
        assert digits.state.exists()
        scheduler.send_signal(signal.SIGCONT)

        def freeze_and_press(done: int, total: int | None) -> None:
            if done == 16:
                scheduler.send_signal(signal.SIGSTOP)
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

        begun = time.monotonic()
        partial = digits.compare(batch_size=4, dask=address, progress=freeze_and_press, resume=True)
        assert not partial.complete and partial.state_file and time.monotonic() - begun < 25
    finally:
        for process in (scheduler, worker):
            if process is not None:
                process.kill()
                process.wait()


def joined(scheduler_file: str, source: Path | None) -> tuple[subprocess.Popen[bytes], str]:
    """A worker that has the package's source from somewhere else, as a process, and the scheduler's address."""
    while not Path(scheduler_file).exists() or not Path(scheduler_file).stat().st_size:
        time.sleep(0.1)
    environment = dict(os.environ) if source is None else {**os.environ, "PYTHONPATH": str(source)}
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", scheduler_file, "--no-nanny"]
        + ["--no-dashboard", "--nthreads", "1", "--preload", dask_cluster.__name__],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with distributed.Client(scheduler_file=scheduler_file) as client:
        before = len(client.nthreads())
        while len(client.nthreads()) == before and process.poll() is None and not before:
            time.sleep(0.1)
        return process, str(client.scheduler.address)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["version", "code"])
def test_worker_that_joins_late_and_differs_ends_the_run(digits: Case, tmp_path: Path, what: str) -> None:
    """Its batches do not count, and it is named."""
    source = tmp_path / "other"
    package = Path(amct_onnx.__file__).parent
    shutil.copytree(package, source / "amct_onnx", ignore=shutil.ignore_patterns("__pycache__"))
    changes = {
        "version": ("__init__.py", '__version__ = "', '__version__ = "9'),
        "code": ("verbs/compare/measure/statistics.py", "\nimport", "\n# another line\nimport"),
    }
    file, old, new = changes[what]
    changed = source / "amct_onnx" / file
    changed.write_text(
        changed.read_text(encoding="utf-8").replace(old, new, 1 if what == "code" else -1), encoding="utf-8"
    )
    cluster = started(1)
    (tmp_path / "s").write_text(json.dumps({"address": cluster.scheduler_address}), encoding="utf-8")
    late: list[subprocess.Popen[bytes]] = []

    def join(done: int, total: int | None) -> None:
        if done >= 4 and not late:
            with distributed.Client(cluster.scheduler_address) as client:
                before = set(client.nthreads())
                late.append(joined(str(tmp_path / "s"), source)[0])
                while set(client.nthreads()) <= before:
                    assert late[0].poll() is None
                    time.sleep(0.1)
            cluster.scale(0)  # then it has all that is left to do

    try:
        with pytest.raises(amct_onnx.SettingError, match=r"orker tcp://.*continue with resume=True") as raised:
            digits.compare(batch_size=1, dask=cluster.scheduler_address, progress=join)
    finally:
        for process in late:
            process.kill()
            process.wait()
        cluster.close()
    words = {"version": "has amct_onnx 9", "code": "has code of amct_onnx"}
    assert words[what] in str(raised.value)
    assert digits.compare(batch_size=1, resume=True).complete
