"""Print CPU time and memory of converting 2,000 small layers, and the ratio to onnx-ir's own share of the work.

The reference reads the same model with onnx-ir, copies it twice and serialises both copies. Both run in turn, in
processes of their own; CPU time counts, so that other processes matter little.

python benchmarks/many_layers.py [LAYERS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from models import convolutions, matmuls

ROUNDS = 3
KINDS: dict[str, Callable[[Path, int], None]] = {
    "MatMul": lambda path, layers: matmuls(path, layers, 16),
    "Conv": lambda path, layers: convolutions(path, layers, 4),
}
"""Kind of the layers -> writes a model of so many."""
REFERENCE = """
import sys
import onnx_ir as ir
model = ir.load(sys.argv[1])
for _ in range(2):
    ir.to_proto(model.clone()).SerializeToString()
"""


def measured(line: list[str]) -> tuple[float, float]:
    """User and system seconds of a command, and its peak memory in MB."""
    quiet = {"AMCT_LOG_LEVEL": "ERROR", "AMCT_LOG_FILE_LEVEL": "ERROR"}
    process = subprocess.Popen(line, env=os.environ | quiet)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(line)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure the command as typed, and the reference, for both kinds of layers."""
    layers = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for kind, make in KINDS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder / "m.onnx", layers)
            command = [sys.executable, "-m", "amct_onnx", "convert", "--quiet", "--model", str(folder / "m.onnx")]
            rounds = [
                (
                    measured([*command, "--save_path", str(folder / "out" / "m")]),
                    measured([sys.executable, "-c", REFERENCE, str(folder / "m.onnx")]),
                )
                for _ in range(ROUNDS)
            ]
        ours, reference = (min(r[i][0] for r in rounds) for i in range(2))
        print(f"{layers} {kind}: {ours:.2f} s of CPU time, {max(r[0][1] for r in rounds):.0f} MB at most")
        print(f"onnx-ir reads, copies and serialises: {reference:.2f} s; ratio {ours / reference:.2f}")


if __name__ == "__main__":
    main()
