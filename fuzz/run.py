"""Mutate inputs from seeds and judge each: python fuzz/run.py --inputs 20000.

Each input follows from its seed number alone, so a finding is repeated with --first N --inputs 1. Workers are separate
processes: a crash or a hang is a finding like others, and costs one input. They serve one target after the other.
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


def work(inputs: Connection, folder: str) -> None:
    """Judge the inputs whose targets and numbers come in; answer (number, outcome, text of a finding)."""
    from oracle import Finding, Sandbox, limit_memory
    from targets import TARGETS, be_quiet

    limit_memory()
    be_quiet()
    sandbox = Sandbox(Path(folder))
    corpora: dict[str, dict[str, bytes]] = {}
    inputs.send("ready")
    while (given := inputs.recv()) is not None:
        target, number = given
        if target not in corpora:
            corpora[target] = TARGETS[target].corpus()
        name, content = input_of(target, number, corpora[target])
        sandbox.prepare()
        try:
            outcome, text = sandbox.judge(lambda t=target, c=content: TARGETS[t].run(sandbox, c)), ""
        except Finding as finding:
            outcome, text = "FINDING", f"{name}: {finding}\n{''.join(traceback.format_exception(finding.__cause__))}"
        inputs.send((number, outcome, text))


class Worker:
    """A process that judges one input at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, str(folder)), daemon=True)
        self.process.start()
        theirs.close()
        if not self.connection.poll(STARTUP_SECONDS) or self.connection.recv() != "ready":
            raise RuntimeError("A worker does not start: see above.")
        self.number: int | None = None
        self.since = 0.0

    def give(self, target: str, number: int) -> None:
        self.number, self.since = number, time.monotonic()
        self.connection.send((target, number))

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


def fuzz(
    target: str, numbers: range, workers: list[Worker], folder: Path, findings: Path | None
) -> collections.Counter[str]:
    """Judge the inputs; print what is found. Returns how often each outcome came."""
    counts: collections.Counter[str] = collections.Counter()
    waiting = iter(numbers)
    while sum(counts.values()) < len(numbers):
        for index, worker in enumerate(workers):
            if worker.number is None:
                number = next(waiting, None)
                if number is None:
                    continue
                worker.give(target, number)
            found = worker.answer()
            if found is None:
                continue
            number, outcome, text = found
            worker.number = None
            counts[outcome] += 1
            if outcome in ("CRASH", "HANG"):
                workers[index] = Worker(folder / f"{target}_{number}_{index}")
            if text:
                report(target, number, outcome, text, findings)
    return counts


def fuzz_all(targets: dict[str, range], jobs: int, findings: Path | None) -> int:
    """Judge the inputs of all targets; print what came out. Returns how many found something."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None  # what fsync costs is not the question here
    found = 0
    with tempfile.TemporaryDirectory(prefix="fuzz_", dir=place) as folder:
        workers = [Worker(Path(folder) / str(i)) for i in range(jobs)]
        for target, numbers in targets.items():
            started = time.monotonic()
            counts = fuzz(target, numbers, workers, Path(folder), findings)
            outcomes = ", ".join(f"{n} {k}" for k, n in counts.most_common())
            print(f"{len(numbers)} inputs of {target} in {time.monotonic() - started:.0f} s: {outcomes}.", flush=True)
            found += sum(counts[k] for k in ("FINDING", "CRASH", "HANG"))
        for worker in workers:
            worker.connection.send(None)
            worker.process.join()
    return found


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
    parser.add_argument("--target", default=["convert"], choices=NAMES, nargs="+", help="one or more")
    parser.add_argument(
        "--inputs",
        type=int,
        default=[20_000],
        nargs="+",
        help="how many; one number, or one a target (default: 20,000)",
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per CPU)")
    parser.add_argument("--findings", type=Path, help="folder for inputs that found something")
    arguments = parser.parse_args()
    counts = arguments.inputs * len(arguments.target) if len(arguments.inputs) == 1 else arguments.inputs
    if len(counts) != len(arguments.target):
        parser.error("--inputs takes one number, or one for each target.")
    first = arguments.first
    targets = {t: range(first, first + n) for t, n in zip(arguments.target, counts, strict=True)}
    return 1 if fuzz_all(targets, arguments.jobs, arguments.findings) else 0


if __name__ == "__main__":
    sys.exit(main())
