"""The layers as CSV: names that a spreadsheet would run as formulas are texts."""

from __future__ import annotations

import csv

from amct_onnx.verbs.compare.present.html.csv_text import layers_csv
from support.comparison_reports import example


def test_every_figure_has_its_column_and_no_name_is_a_formula() -> None:
    report = example()
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
