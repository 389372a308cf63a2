"""Memory of a process that converts, checks and opens models one after another stays flat."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.golden_models import MODELS

MODEL = MODELS / "torchfx_digitsnet_u8_bnfold_op13" / "model.onnx"
WORKS = {
    "convert": "amct_onnx.convert_qat_model(source, 'm')",
    "unwritable": "refused(lambda: amct_onnx.convert_qat_model(source, '/dev/null/m'))",
    "check": "amct_onnx.check('m_deploy_model.onnx')",
    "session": "amct_onnx.DeploySession('m_deploy_model.onnx', device='a2').close()",
    "bias": "amct_onnx.quantize_bias(source, 'b.onnx')",
}
CODE = """
import gc, sys
import amct_onnx
amct_onnx.set_logging_level("error", "error")
source, warm, count, collects = sys.argv[1], *map(int, sys.argv[2:5])

def refused(call):
    try:
        call()
    except amct_onnx.AmctError:
        return
    raise SystemExit("it was not refused")

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

amct_onnx.convert_qat_model(source, "m")
if not collects:
    gc.disable()  # what a conversion leaves to the collector stays
for number in range(warm + count):
    if number == warm:
        objects, pages = len(gc.get_objects()), resident()
    {work}
print(len(gc.get_objects()) - objects, resident() - pages)
"""


def grown(work: str, warm: int, count: int, *, collects: bool) -> tuple[int, float]:
    """Objects that the collector knows, and MiB of resident memory, that calls added after some to warm up."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    code = CODE.replace("{work}", WORKS[work])
    command = [sys.executable, "-c", code, str(MODEL), str(warm), str(count), str(int(collects))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    objects, pages = map(int, done.stdout.split()[-2:])
    return objects, pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.mark.slow
def test_conversions_leave_nothing_to_the_collector() -> None:
    """One conversion of this model makes 1,367 objects in cycles, and half a megabyte."""
    objects, mebibytes = grown("convert", 10, 40, collects=False)
    assert objects < 400 and mebibytes < 4, (objects, mebibytes)


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_memory_is_flat_over_2000(work: str) -> None:
    _, mebibytes = grown(work, 50, 2000, collects=True)
    assert mebibytes < 25
