"""docs/doctor.md states each setting, each verdict and each JSON field as the code has them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from amct_onnx.verbs.doctor.cpu import CpuFacts
from amct_onnx.verbs.doctor.report import MEANINGS, WRONG, DoctorReport, SettingResult
from amct_onnx.verbs.doctor.settings import SETTINGS

PAGE = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report() -> DoctorReport:
    """One setting for which a value became infinite."""
    wrong = SettingResult("default", "all", {}, "", WRONG, math.inf, math.inf, math.inf, math.inf, 0.5, "y")
    cpu = CpuFacts("x86_64", "", ("AVX2",), True)
    return DoctorReport("m.onnx", "d.npz", 1, 10, cpu, {"python": "3"}, 2, (), ("conv",), (wrong,))


def table(name: str) -> list[list[str]]:
    """Cells of the rows between two markers, without head and rule."""
    part = PAGE.split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
    return [[c.strip() for c in line.strip("|").split("|")] for line in part.strip().splitlines()[2:]]


def test_page_lists_every_setting() -> None:
    expected = []
    for setting in SETTINGS:
        entries = ", ".join(f"`{key}={value}`" for key, value in setting.entries) or "–"
        expected.append([f"`{setting.name}`", f"`{setting.level}`", entries, setting.why])
    assert table("settings") == expected


def test_page_lists_every_verdict() -> None:
    assert table("verdicts") == [[f"`{verdict}`", meaning] for verdict, meaning in MEANINGS.items()]


def test_page_lists_exactly_the_fields_of_the_json(report: DoctorReport) -> None:
    stated = set()
    for line in PAGE.split("## JSON")[1].splitlines():
        if line.startswith("| `"):
            first, *others = re.findall(r"`([^`]+)`", line.split("|")[1])
            prefix = first.rpartition(".")[0]
            stated |= {first, *(n if "." in n or not prefix else f"{prefix}.{n}" for n in others)}
    content = report.to_dict()
    fields = set(content) | {f"cpu.{k}" for k in content["cpu"]} | {f"settings[].{k}" for k in content["settings"][0]}
    assert stated == fields


def test_json_holds_no_infinity(report: DoctorReport) -> None:
    (setting,) = json.loads(json.dumps(report.to_dict(), allow_nan=False))["settings"]
    assert setting["max_error"] is None and setting["mean_error_steps"] is None
    assert setting["differing"] == 0.5
    assert not report.trusted
