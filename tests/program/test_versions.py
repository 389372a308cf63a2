"""The lower bounds of the dependencies are those that .ci/run installs; the version is said alike everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import amct_onnx
from amct_onnx.common import versions

ROOT = Path(__file__).resolve().parents[2]


def test_lower_bounds_are_the_versions_that_ci_installs() -> None:
    (declared,) = re.findall(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    bounds = dict(re.findall(r'"([\w-]+)>=([\d.]+)"', declared))
    assert len(bounds) == declared.count('"') // 2  # each has a lower bound and nothing else
    lines = [n for n in (ROOT / ".ci" / "oldest.txt").read_text().splitlines() if not n.startswith("#")]
    assert dict(line.split("==") for line in lines) == bounds


def test_version_is_that_of_the_code_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may run a checkout beside an installed package of another version."""
    monkeypatch.setattr(versions.metadata, "version", lambda _: "9")
    assert versions.library_versions()["amct_onnx"] == amct_onnx.__version__
    assert versions.library_versions()["numpy"] == "9"


def test_citation_names_the_version() -> None:
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited == amct_onnx.__version__
