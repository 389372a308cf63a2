"""The page of a comparison: one file, nothing from the network, hostile names escaped."""

from __future__ import annotations

import json
import re
from pathlib import Path

from amct_onnx.comparison.html.write_html import write_html

EXAMPLE = Path(__file__).parent / "data" / "compare_report.json"


def test_page_is_self_contained_and_names_every_layer(tmp_path: Path) -> None:
    report = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    hostile = "<script>alert(1)</script>"
    report["layers"][0]["name"] = hostile
    write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert hostile not in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert all(layer["name"] in page for layer in report["layers"][1:])
