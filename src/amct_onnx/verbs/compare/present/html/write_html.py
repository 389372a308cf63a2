"""Write a comparison as one HTML file: no network, readable from a mail, on a phone and on paper."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from typing import Any

from amct_onnx.common.plain_text import shown
from amct_onnx.files.write import write_texts
from amct_onnx.verbs.compare.float_model import FLOAT
from amct_onnx.verbs.compare.present.figures import figure
from amct_onnx.verbs.compare.present.html.charts import histogram, layer_panels

NOTHING = "–"
VERDICT_WORDS = {
    "equal": "No difference",
    "noise": "Quantization noise only",
    "incomplete": "Not judged in full",
    "diverges": "A real difference",
}
SIGNS = {"equal": "✓", "noise": "≈", "incomplete": "?", "diverges": "!"}
MARKS = 6
"""Colours, shapes and dashes that tell models apart: of the fake-quant model and a deploy model on every device."""


def write_html(report: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the page of a comparison, all of it or nothing.

    Args:
        report: what ``CompareReport.to_dict`` gives, or the same read from its JSON file.
        path: of the .html file; an existing one is replaced.

    Raises:
        OutputError: The file cannot be written.
    """
    write_texts({path: render_html(report)})


def render_html(report: dict[str, Any]) -> str:
    """The page as text; every string of the report is escaped."""
    import jinja2

    report = _shown(report)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("amct_onnx.verbs.compare.present.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, share=share, whole=whole, points=points)
    script = environment.get_template("filters.js").render()
    layers = report["layers"]
    return environment.get_template("report.html").render(
        r=report,
        others=[m for m in report["models"][1:] if m["key"] != FLOAT],
        metrics=_distinct(m["name"] for model in report["models"] for m in model["metrics"]),
        pins=_distinct(k for model in report["models"] for k in model["settings"] or {}),
        panels=layer_panels(report),
        bars=[histogram(h) for h in report["histograms"] if h["counts"]],
        choices={
            "verdict": _distinct(layer["verdict"] for layer in layers),
            "op_type": _distinct(layer["op_type"] for layer in layers),
            "reason": _distinct(layer["reason"] for layer in layers if layer["reason"]),
        },
        first={d["index"] for d in report["divergences"]},
        word=VERDICT_WORDS.get(report["verdict"]["level"], report["verdict"]["level"]),
        sign=SIGNS.get(report["verdict"]["level"], "?"),
        kinds=MARKS,
        script=script,
        # the page says itself which script may run: nothing that a name of the model could smuggle in
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _shown(value: Any) -> Any:
    """A report whose texts neither turn the page's direction of reading nor fill it."""
    if isinstance(value, dict):
        return {_shown(k): _shown(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(v) for v in value]
    return shown(value) if isinstance(value, str) else value


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, in decimal notation where that is short."""
    return NOTHING if value is None else figure(value, digits)


def whole(value: int | None) -> str:
    """Thousands set apart by narrow spaces."""
    return NOTHING if value is None else f"{value:,}".replace(",", "\u202f")


def share(value: float | None, digits: int = 2) -> str:
    """Percent; what is not nothing does not look like nothing."""
    if value is None:
        return NOTHING
    smallest = 10.0 ** -(digits + 2)
    if 0 < abs(value) < smallest / 2:
        return f"< {smallest:.{digits}%}".replace("%", "\u202f%")
    return f"{value:.{digits}%}".replace("%", "\u202f%")


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return "±0" if round(100 * value, 2) == 0 else f"{100 * value:+.2f}".replace("-", "−")
