"""Convert generated models and copy the same bytes with cp in turn; print the table or write it into the documentation.

python benchmarks/conversion.py [CASE ...] [--rounds N] [--folder FOLDER] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from models import CASES, ON_REQUEST

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
MEASURED = """
import json, os, resource, sys, time
if sys.argv[3] == "unflushed":  # what a plain cp does: the disk works afterwards
    os.fsync = os.fdatasync = lambda handle: None
start = time.perf_counter()
from amct_onnx.convert_model import convert_qat_model
imported = time.perf_counter()
convert_qat_model(sys.argv[1], sys.argv[2])
done = time.perf_counter()
usage = resource.getrusage(resource.RUSAGE_SELF)
cpu = usage.ru_utime + usage.ru_stime
# ru_maxrss begins with the parent's size at the fork
rss = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"start": imported - start, "wall": done - imported, "cpu": cpu, "rss": rss}))
"""


def converted(model: Path, folder: Path, *, flush: bool) -> dict[str, float]:
    """One conversion in a process of its own, on the disk when it ends, or in memory as after a plain cp."""
    line = [sys.executable, "-c", MEASURED, str(model), str(folder / "out" / "m"), "" if flush else "unflushed"]
    environment = os.environ | {"AMCT_LOG_LEVEL": "ERROR", "AMCT_LOG_FILE_LEVEL": "ERROR"}
    result = subprocess.run(line, capture_output=True, text=True, check=True, cwd=folder, env=environment)
    measured: dict[str, float] = json.loads(result.stdout)
    for path in (folder / "out").iterdir():
        path.unlink()
    return measured


def copied(files: list[Path], folder: Path, *, flush: bool) -> float:
    """Seconds that cp takes for the source, with its data on the disk as ours have to be, or not."""
    start = time.perf_counter()
    for path in files:
        subprocess.run(["cp", str(path), str(folder / "copy")], check=True)
        if flush:
            subprocess.run(["sync", str(folder / "copy")], check=True)
        (folder / "copy").unlink()
    return time.perf_counter() - start


def measure(name: str, folder: Path, rounds: int) -> str:
    """A row of the table: the fastest of interleaved rounds."""
    model = folder / "source.onnx"
    CASES[name](model)
    files = [p for p in (model, model.with_suffix(".data")) if p.exists()]
    size = sum(p.stat().st_size for p in files)
    runs, unflushed, plain, flushed = [], [], [], []
    for _ in range(rounds):
        runs.append(converted(model, folder, flush=True))
        unflushed.append(converted(model, folder, flush=False))
        plain.append(copied(files, folder, flush=False))
        flushed.append(copied(files, folder, flush=True))
    for path in files:
        path.unlink()
    best = min(runs, key=lambda run: run["wall"])
    in_memory = min(run["wall"] for run in unflushed)
    return (
        f"| {name} | {size / 1e6:.1f} | {in_memory:.2f} | {min(plain):.2f} | {in_memory / min(plain):.2f} "
        f"| {best['wall']:.2f} | {min(flushed):.2f} | {best['wall'] / min(flushed):.2f} | {best['cpu']:.2f} "
        f"| {max(run['rss'] for run in runs):.0f} | {best['start']:.2f} |"
    )


def main() -> None:
    """Measure the named cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=[n for n in CASES if n not in ON_REQUEST], metavar="CASE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the models are made; a temporary folder without it")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    arguments = parser.parse_args()
    unknown = [n for n in arguments.cases if n not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown[0]}; one of {', '.join(CASES)}")
    lines = [
        "| model | source MB | ours, not flushed s | cp s | ratio | ours s | cp + sync s | ratio | user + system s "
        "| peak RSS MB | imports s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in arguments.cases:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            lines.append(measure(name, Path(folder), arguments.rounds))
        print(lines[-1], flush=True)
    if arguments.write:
        text = DOCUMENT.read_text()
        head, tail = text.split(BEGIN)[0], text.split(END)[1]
        DOCUMENT.write_text(f"{head}{BEGIN}{chr(10).join(lines)}\n{END}{tail}")


if __name__ == "__main__":
    main()
