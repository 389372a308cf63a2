"""Print what `amct_onnx --help` and the conversion of a small model take against the imports that they cannot avoid.

`--help` is held against `python -c "import argparse"`, `convert` of a model of about 100 kB against
`python -c "import onnx_ir"`, half of which is sympy. All are run in turn; seconds are CPU time of a process, the least
of the rounds, so that other programs on the machine hardly matter. Exit 1 when one takes more than its limit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from resource import RUSAGE_CHILDREN, getrusage

import onnx
from simulate import Network

ROUNDS = 15
HELP_LIMIT, CONVERT_LIMIT = 2.0, 1.25


def seconds(*arguments: str) -> float:
    """CPU time of one process."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ratio(name: str, ours: list[str], reference: str) -> float:
    """Measure in turn, print, return the ratio."""
    pairs = [(seconds("-m", "amct_onnx", *ours), seconds("-c", f"import {reference}")) for _ in range(ROUNDS)]
    mine, theirs = (min(column) for column in zip(*pairs, strict=True))
    print(f"amct_onnx {name} {mine * 1e3:.0f} ms, import {reference} {theirs * 1e3:.0f} ms: ratio {mine / theirs:.2f}")
    return mine / theirs


def small_model() -> onnx.ModelProto:
    """Six quantized layers, about 100 kB."""
    net = Network(32)
    x = net.conv("x", 3, 16, 3)
    for _ in range(4):
        x = net.conv(x, 16, 16, 3)
    return net.model(x, 16)


def main() -> None:
    """Take the least of interleaved rounds."""
    kept = ratio("--help", ["--help"], "argparse") <= HELP_LIMIT
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(small_model(), f"{folder}/m.onnx")
        convert = ["convert", "--model", f"{folder}/m.onnx", "--save_path", f"{folder}/m"]
        kept &= ratio("convert", convert, "onnx_ir") <= CONVERT_LIMIT
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
