"""Batches on a real local Dask cluster: the same bits for any number of workers, also when one is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import distributed
import numpy as np
import pytest

import amct_onnx
from comparison_cases import Case


@pytest.fixture(scope="module")
def cluster() -> Iterator[distributed.LocalCluster]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as running:
        yield running


def figures(report: amct_onnx.CompareReport) -> dict[str, Any]:
    content = report.to_dict()
    return {k: v for k, v in content.items() if k not in ("created", "seconds", "settings")}


def test_any_number_of_workers_and_a_killed_one_give_the_same_bits(
    digits: Case, cluster: distributed.LocalCluster
) -> None:
    options: dict[str, Any] = {"labels": digits.labels, "batch_size": 4}
    alone = digits.compare(**options)
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
