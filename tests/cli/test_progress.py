"""The bar on a terminal: nothing but what is known."""

from __future__ import annotations

import io
import re
import sys

import pytest

from amct_onnx.cli.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [{"in_bytes": True}, {"unit": "samples"}, {}])
def test_no_count_before_the_total_is_known(kind: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    with progress_bar("Loading", **kind) as bar:  # type: ignore[arg-type]
        assert bar is not None
        bar.stage("Reading")
        bar.stage("Opening")
        bar(3, 64)
        bar.stage("Diagnosing: layers")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sys.stderr.getvalue())  # type: ignore[attr-defined]
    assert "?" not in shown and "-:--" not in shown.split("Opening")[0]
    assert "Reading" in shown and "Diagnosing: layers" in shown  # painted at once: a stage may hold the interpreter
    assert not re.search(r"Diagnosing: layers[^\n]*/64", shown)
