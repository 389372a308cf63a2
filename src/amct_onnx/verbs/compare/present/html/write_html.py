"""Write a comparison as one HTML file: no network, readable from a mail, on a phone and on paper."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from typing import Any

from amct_onnx.common.plain_text import shown
from amct_onnx.common.warning_kinds import first_of_each_kind
from amct_onnx.files.write import write_texts
from amct_onnx.verbs.compare.present.figures import figure
from amct_onnx.verbs.compare.present.html.charts import (
    compared_models,
    fault_labels,
    fault_models,
    histogram,
    layer_panels,
)
from amct_onnx.verbs.compare.present.html.csv_text import layers_csv
from amct_onnx.verbs.compare.present.html.details import detail
from amct_onnx.verbs.compare.present.html.page_names import names_of
from amct_onnx.verbs.convert.exporter_changes import Change

NOTHING = "–"
VERDICT_WORDS = {
    "equal": "No difference",
    "noise": "Quantization noise only",
    "incomplete": "Not judged in full",
    "diverges": "A real difference",
}
SIGNS = {"equal": "✓", "noise": "≈", "incomplete": "?", "diverges": "!"}
SCRIPTS = ("filters.js", "tables.js", "details.js")
LEDGER_COLUMNS, LAST_COLUMNS = ("layer", "verdict", "scale_d", "output LSB"), ("saturated", "bias error")
"""By which the ledger is sorted where its head is hidden: those before and behind the models'."""
LONG_LEDGER, WORST = 60, 20
"""More rows than this are shown on demand; of the others those with the largest errors are shown at once."""
DETAILS_SIZE = 4 << 20
"""Characters that the layers' details may have together."""
LONG_WORD = 24
"""Characters of a word from which on a line may end within it."""
LONG_PART = re.compile(r".+?(?:(?<=\w)[/_.](?=\w)|$)")
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
    names = names_of(report)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("amct_onnx.verbs.compare.present.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        share=share,
        whole=whole,
        points=points,
        pieces=names.pieces,
        breakable=breakable,
        gain=lambda change: Change(**change).gain(),
    )
    script = "\n".join(environment.get_template(name).render() for name in SCRIPTS)
    layers = report["layers"]
    faults = fault_labels(report)
    return environment.get_template("report.html").render(
        r=report,
        others=[m for m in report["models"] if m["key"] in compared_models(report)],
        metrics=_distinct(m["name"] for model in report["models"] for m in model["metrics"]),
        pins=_distinct(k for model in report["models"] for k in model["settings"] or {}),
        panels=layer_panels(report),
        bars=[histogram(h) for h in report["histograms"] if h["counts"]],
        long=LONG_LEDGER,
        warnings=first_of_each_kind(report["ledger_warnings"]),
        not_judged=first_of_each_kind(report["not_judged"], "in the JSON report"),
        choices={
            "verdict": _distinct(layer["verdict"] for layer in layers),
            "op_type": _distinct(layer["op_type"] for layer in layers),
            "reason": _distinct(layer["reason"] for layer in layers if layer["reason"]),
        },
        faults=faults,
        divergences=_told_once(report["divergences"]),
        calm=_calm(report),
        sentences=_beyond(report, report["verdict"]["sentences"], "text"),
        advice=_beyond(report, report["verdict"]["advice"], "advice"),
        rest=_rest(report, faults),
        is_fault=lambda d: bool(fault_models([d])),
        details=_details(environment.get_template("details.html").module, report, faults),
        columns=[*LEDGER_COLUMNS, *compared_models(report), *LAST_COLUMNS],
        csv=layers_csv(report),
        word=VERDICT_WORDS.get(report["verdict"]["level"], report["verdict"]["level"]),
        sign=SIGNS.get(report["verdict"]["level"], "?"),
        kinds=MARKS,
        script=script,
        # the page says itself which script may run: nothing that a name of the model could smuggle in
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _calm(report: dict[str, Any]) -> list[str]:
    """The models that have no fault, beside one that has."""
    wrong = {d["model"] for d in report["divergences"] if fault_models([d])}
    return [m for m in compared_models(report) if m not in wrong]


def _told_once(divergences: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Faults first, in network order; what several models have alike is one entry that names them all."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for d in sorted(divergences, key=lambda d: (not fault_models([d]), d["index"])):
        key = (d["index"], d["place"], d["cause"], d["text"].replace(d["model"], ""))
        told = groups.setdefault(key, {**d, "model": ""})
        told["model"] += f", {d['model']}" if told["model"] else d["model"]
    return list(groups.values())


def _beyond(report: dict[str, Any], texts: Iterable[str], field: str) -> list[str]:
    """What neither the beginning of the page nor a divergence says."""
    said = [d[field] for d in report["divergences"] if d[field]] + [f"Not judged: {t}" for t in report["not_judged"]]
    begun = report["verdict"]["brief"]
    return [t for t in texts if not any(t in line for line in begun) and not any(s in t for s in said)]


def _worst_first(report: dict[str, Any]) -> list[int]:
    """The layers by their largest mean error in LSB."""

    def error(layer: dict[str, Any]) -> float:
        return max((d["mean_lsb"] or 0.0 for d in layer["differences"]), default=0.0)

    return sorted(range(len(report["layers"])), key=lambda i: error(report["layers"][i]), reverse=True)


def _rest(report: dict[str, Any], faults: Iterable[int]) -> set[int]:
    """The layers of a long ledger that a screen shows on demand: neither faulty nor float nor among the worst."""
    layers = report["layers"]
    if len(layers) <= LONG_LEDGER:
        return set()
    refused = {i for i, layer in enumerate(layers) if layer["verdict"] == "refused"}
    return set(range(len(layers))) - refused - set(faults) - set(_worst_first(report)[:WORST])


def _details(template: Any, report: dict[str, Any], faults: Iterable[int]) -> dict[int, str]:
    """Of each layer by number; when all are too much for a page, of those with faults and large errors."""
    made: dict[int, str] = {}
    size = 0
    for index in dict.fromkeys([*faults, *_worst_first(report)]):
        text = template.layer_detail(report, index, detail(report, index), MARKS)
        size += len(text)
        if size > DETAILS_SIZE:
            break
        made[index] = text
    return dict(sorted(made.items()))


def _shown(value: Any) -> Any:
    """A report whose texts neither turn the page's direction of reading nor fill it."""
    if isinstance(value, dict):
        return {_shown(k): _shown(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(v) for v in value]
    return shown(value) if isinstance(value, str) else value


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def breakable(text: str) -> Any:
    """Escaped, with places behind the parts of a path or name where a line may end."""
    import markupsafe

    parts = (LONG_PART.findall(word) if len(word) > LONG_WORD else [word] for word in re.split(r"(\s+)", text))
    return markupsafe.Markup().join(markupsafe.Markup("<wbr>").join(p) for p in parts)


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
