"""The layers of a report as CSV, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from amct_onnx.verbs.compare.present.html.charts import compared_models

LAYER = ("name", "op_type", "verdict", "reason", "granularity", "scale_d", "offset_d", "lsb", "lsb_of")
DIFFERENCE = ("mean_lsb", "max_lsb", "share_lsb", "mean_abs", "max_abs", "sqnr_db", "cosine")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula at the beginning of a text."""


def layers_csv(report: Mapping[str, Any]) -> str:
    """One line for each layer: the ledger's columns, then those of each model; an unknown figure is empty."""
    keys = [report["models"][0]["key"], *compared_models(report)]
    file = io.StringIO()
    write = csv.writer(file, lineterminator="\n")
    columns = ["number", *LAYER, "bias_error_max_lsb"]
    columns += [f"{k} {name}" for k in keys[1:] for name in DIFFERENCE] + [f"{k} saturated share" for k in keys]
    write.writerow(columns)
    for number, layer in enumerate(report["layers"], 1):
        differences = {d["model"]: d for d in layer["differences"]}
        shares = {c["model"]: c["saturated"] / c["values"] for c in layer["counts"] if c["values"]}
        row = [number, *(layer[name] for name in LAYER), (layer["bias_error"] or {}).get("max_lsb")]
        row += [differences.get(k, {}).get(name) for k in keys[1:] for name in DIFFERENCE]
        row += [shares.get(k) for k in keys]
        write.writerow([_text(v) for v in row])
    return file.getvalue()


def _text(value: Any) -> Any:
    """A name that begins like a formula is none."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
