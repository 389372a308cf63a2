"""Print how long `amct_onnx --help` takes against `python -c "import argparse"`, both measured in turn in one run."""

from __future__ import annotations

import subprocess
import sys
import time

ROUNDS = 15


def seconds(*arguments: str) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Take the fastest of interleaved rounds."""
    pairs = [(seconds("-m", "amct_onnx", "--help"), seconds("-c", "import argparse")) for _ in range(ROUNDS)]
    ours, reference = (min(column) for column in zip(*pairs, strict=True))
    print(
        f"amct_onnx --help {ours * 1e3:.0f} ms, import argparse {reference * 1e3:.0f} ms: ratio {ours / reference:.2f}"
    )


if __name__ == "__main__":
    main()
