"""Mutate inputs from seeds and judge each: python fuzz/run.py --inputs 20000.

Each input follows from its seed number alone, so a finding is repeated with --first N --inputs 1. Workers are separate
processes: a crash or a hang is a finding like others, and costs one input.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

WALL_SECONDS = 60.0
"""An input that takes longer hangs."""
NAMES = (
    *("convert", "numbers", "deploy", "surroundings"),
    *("ledger", "state", "board", "aipp", "data", "labels", "evaluator", "feeds"),
)
"""Names of ``targets.TARGETS``, whose import takes seconds."""
STARTUP_SECONDS = 300.0
"""Time for the imports of a worker on a busy machine."""


def input_of(target: str, number: int, corpus: dict[str, bytes]) -> tuple[str, bytes]:
    """Name of the seed, and the input with that number; small seeds come more often, they take less time."""
    from targets import TARGETS

    chance = random.Random(number)
    names = sorted(corpus)
    name = chance.choices(names, [len(corpus[n]) ** -0.7 for n in names])[0]
    return name, TARGETS[target].mutate(corpus[name], chance, list(corpus.values()))


def work(target: str, numbers: Connection, folder: str) -> None:
    """Judge the inputs whose numbers come in; answer (number, outcome, text of a finding)."""
    from oracle import Finding, Sandbox, limit_memory
    from targets import TARGETS, be_quiet

    limit_memory()
    be_quiet()
    sandbox = Sandbox(Path(folder))
    corpus = TARGETS[target].corpus()
    numbers.send("ready")
    while (number := numbers.recv()) is not None:
        name, content = input_of(target, number, corpus)
        sandbox.prepare()
        try:
            outcome, text = sandbox.judge(lambda c=content: TARGETS[target].run(sandbox, c)), ""
        except Finding as finding:
            outcome, text = "FINDING", f"{name}: {finding}\n{''.join(traceback.format_exception(finding.__cause__))}"
        numbers.send((number, outcome, text))


class Worker:
    """A process that judges one input at a time."""

    def __init__(self, target: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(target, theirs, str(folder)), daemon=True)
        self.process.start()
        theirs.close()
        if not self.connection.poll(STARTUP_SECONDS) or self.connection.recv() != "ready":
            raise RuntimeError("A worker does not start: see above.")
        self.number: int | None = None
        self.since = 0.0

    def give(self, number: int) -> None:
        self.number, self.since = number, time.monotonic()
        self.connection.send(number)

    def answer(self) -> tuple[int, str, str] | None:
        """(number, outcome, text) of the input, None while it is judged."""
        try:
            if self.connection.poll(0.02):
                found: tuple[int, str, str] = self.connection.recv()
                return found
        except (EOFError, OSError):
            self.process.join()
            return self.number or 0, "CRASH", f"the process ended with {self.process.exitcode}"
        if time.monotonic() - self.since > WALL_SECONDS:
            self.process.kill()
            self.process.join()
            return self.number or 0, "HANG", f"no answer in {WALL_SECONDS:.0f} s"
        return None


def fuzz(target: str, first: int, inputs: int, jobs: int, findings: Path | None) -> collections.Counter[str]:
    """Judge the inputs; print what is found. Returns how often each outcome came."""
    counts: collections.Counter[str] = collections.Counter()
    waiting = iter(range(first, first + inputs))
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None  # what fsync costs is not the question here
    with tempfile.TemporaryDirectory(prefix="fuzz_", dir=place) as folder:
        workers = [Worker(target, Path(folder) / str(i)) for i in range(jobs)]
        started = 0
        while sum(counts.values()) < inputs:
            for index, worker in enumerate(workers):
                if worker.number is None:
                    number = next(waiting, None)
                    if number is None:
                        continue
                    worker.give(number)
                    started += 1
                found = worker.answer()
                if found is None:
                    continue
                number, outcome, text = found
                worker.number = None
                counts[outcome] += 1
                if outcome in ("CRASH", "HANG"):
                    workers[index] = Worker(target, Path(folder) / f"{number}_{index}")
                if text:
                    report(target, number, outcome, text, findings)
        for worker in workers:
            worker.connection.send(None)
            worker.process.join()
    return counts


def report(target: str, number: int, outcome: str, text: str, findings: Path | None) -> None:
    """Print a finding, and keep its input."""
    print(f"{outcome} at input {number} of {target}: {text}", flush=True)
    if findings is not None:
        from targets import TARGETS

        findings.mkdir(parents=True, exist_ok=True)
        _, content = input_of(target, number, TARGETS[target].corpus())
        (findings / f"{target}_{number}.onnx").write_bytes(content)
        (findings / f"{target}_{number}.txt").write_text(text)


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="convert", choices=NAMES)
    parser.add_argument("--inputs", type=int, default=20_000, help="how many (default: 20,000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per CPU)")
    parser.add_argument("--findings", type=Path, help="folder for inputs that found something")
    arguments = parser.parse_args()
    started = time.monotonic()
    counts = fuzz(arguments.target, arguments.first, arguments.inputs, arguments.jobs, arguments.findings)
    found = sum(counts[k] for k in ("FINDING", "CRASH", "HANG"))
    outcomes = ", ".join(f"{n} {k}" for k, n in counts.most_common())
    print(f"{sum(counts.values())} inputs of {arguments.target} in {time.monotonic() - started:.0f} s: {outcomes}.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
