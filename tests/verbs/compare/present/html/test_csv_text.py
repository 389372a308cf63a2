"""The layers as CSV: names that a spreadsheet would run as formulas are texts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from amct_onnx.verbs.compare.present.html.csv_text import layers_csv

EXAMPLE = Path(__file__).parents[4] / "data" / "compare_report.json"


def test_every_figure_has_its_column_and_no_name_is_a_formula() -> None:
    report = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    report["layers"][1]["name"] = '=HYPERLINK("x", "y")\n, z'
    rows = list(csv.DictReader(layers_csv(report).splitlines(keepends=True)))
    assert len(rows) == len(report["layers"])
    assert rows[1]["name"] == '\'=HYPERLINK("x", "y")\n, z'
    for row, layer in zip(rows, report["layers"], strict=True):
        for d in layer["differences"]:
            known = "" if d["mean_lsb"] is None else repr(d["mean_lsb"])
            assert row[f"{d['model']} mean_lsb"] == known
        for c in layer["counts"]:
            assert float(row[f"{c['model']} saturated share"]) == c["saturated"] / c["values"]
