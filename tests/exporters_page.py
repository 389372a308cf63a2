"""Write docs/exporters.md from the conversions of all models in tests/data/models.

Run it as ``python tests/exporters_page.py`` in an environment that holds the package and its dev extra.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amct_onnx.errors import AmctError
from amct_onnx.files.read import read_model
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.ledger import CONVERTED
from amct_onnx.plan.planner import make_plan
from amct_onnx.plan.settings import DROP, PlanSettings
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.exporter_patterns import PATTERNS, Patterns
from support.golden_models import MODELS

PAGE = Path(__file__).parent.parent / "docs" / "exporters.md"
ALL_MODELS = sorted(p.parent.name for p in MODELS.glob("*/model.onnx"))
POST_PROCESSED = "optimised afterwards"
EXPORTERS = {
    "torchfx": "torch FX",
    "torcheager": "torch eager",
    "torchfq": "torch functional",
    "torchfunc": "torch functional",
    "torchconverted": "torch converted",
    "pt2e": "PT2E",
    "ort": "ONNX Runtime",
    "tfmot": "TFMOT + tf2onnx",
    "tf1contrib": "TF1 + tf2onnx",
    "modelopt": "ModelOpt",
    "modeloptonnx": "ModelOpt",
    "nncfonnx": "NNCF",
    "inc": "onnx-neural-compressor",
    "quark": "Quark",
    "brevitas": "Brevitas",
}

HEAD = """# What becomes of every exporter's models

Made by `python tests/exporters_page.py` from the conversions of all models in `tests/data/models`; a test compares it.

"""
FLOAT_HEAD = """
## Layers that stay float

| model | layer | operator | reason | detail |
|---|---|---|---|---|
"""
PAIRS_HEAD = """
## Quantizer pairs for each int8 layer

AscendQuant + AscendAntiQuant pairs, divided by the int8 layers of all models of an exporter here. Before: as many as
the source asks for. Exact: what is left by default, where no number changes. Dropped: what `--residual_quantizers drop`
leaves, which changes numbers: those pairs whose AscendQuant an int8 layer reads as well.

| exporter | int8 layers | before | exact | dropped |
|---|---|---|---|---|
"""
MATRIX_HEAD = """
## Exporter × pattern × what happens

A cell counts what the pattern was found on. Layers: `int8`, or the reason code for which they stay float. Quantizers:
`into a layer` (its AscendQuant), `elided` (removed, exact), `anti-quant` (AscendQuant + AscendAntiQuant) or
`float-chain` (float operators). `–`: no model of that exporter here holds the pattern. The last column
holds models that onnxsim, onnxslim or ONNX Runtime's optimiser rewrote.

"""


@dataclass(frozen=True)
class Outcome:
    """One model: its report, or the error that refused it."""

    name: str
    report: ConversionReport | None
    error: str

    @property
    def exporter(self) -> str:
        """Column of the matrix."""
        return exporter_of(self.name)


def exporter_of(name: str) -> str:
    """The exporter of a model, by the name of its folder."""
    return POST_PROCESSED if "__" in name else EXPORTERS[name.split("_")[0]]


Convert = Callable[[str, Path], ConversionReport]
"""Name of a model, a folder -> the report of its conversion into the folder."""


def convert(name: str, folder: Path) -> ConversionReport:
    """Convert one model into a folder."""
    return convert_qat_model(MODELS / name / "model.onnx", folder / name)


def outcome(name: str, folder: Path, convert: Convert) -> Outcome:
    """What becomes of one model."""
    try:
        return Outcome(name, convert(name, folder), "")
    except AmctError as error:
        return Outcome(name, None, type(error).__name__)


def float_rows(name: str, report: ConversionReport) -> list[str]:
    """The rows of one model in the table of layers that stay float."""
    return [f"| {name} | `{e.name}` | {e.op_type} | {e.reason} | {_cell(e.detail)} |" for e in report.refused]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _model_row(outcome: Outcome) -> str:
    meta = json.loads((MODELS / outcome.name / "meta.json").read_text(encoding="utf-8"))
    if outcome.report is None:
        return f"| {outcome.name} | {_cell(meta['version'])} | refused: {outcome.error} | |"
    actions = Counter(r.action for r in outcome.report.residuals)
    rest = ", ".join(f"{action} {count}" for action, count in sorted(actions.items()))
    layers = f"{len(outcome.report.converted)} of {len(outcome.report.layers)}"
    return f"| {outcome.name} | {_cell(meta['version'])} | {layers} | {rest} |"


def _pairs_row(exporter: str, outcomes: list[Outcome]) -> str:
    """Of all models of an exporter: int8 layers, and the pairs of each before, with the exact rules, and dropped."""
    layers, before, exact, dropped = 0, 0, 0, 0
    for outcome in outcomes:
        if outcome.report is None:
            continue
        actions = Counter(r.action for r in outcome.report.residuals)
        layers += len(outcome.report.converted)
        before += actions["anti-quant"] + actions["elided"]
        exact += actions["anti-quant"]
        dropped += _left_when_dropped(outcome.name) if actions["anti-quant"] else 0
    if not layers:
        return f"| {exporter} | 0 | – | – | – |"
    return f"| {exporter} | {layers} | " + " | ".join(f"{n / layers:.2f}" for n in (before, exact, dropped)) + " |"


def _left_when_dropped(name: str) -> int:
    """The pairs that stay AscendQuant and AscendAntiQuant with ``--residual_quantizers drop``."""
    model = normalise(read_model(MODELS / name / "model.onnx"))
    plan = make_plan(model, PlanSettings(residual_quantizers=DROP))
    left = [p for p in (*plan.pairs, *plan.moved) if not p.elided and not p.dropped and p.source]
    return sum(p.quantizer is not None and p.quantizer.per_tensor_int8 for p in left)


def _happened(outcome: Outcome, layers: list[str], tensors: list[str]) -> Counter[str]:
    """What the ledger says about the layers and the quantized tensors on which a pattern was found."""
    found: Counter[str] = Counter()
    if outcome.report is None:
        found["model refused"] = len(layers) + len(tensors)
        return found
    verdicts = {e.name: "int8" if e.verdict == CONVERTED else str(e.reason) for e in outcome.report.layers}
    actions: dict[str, list[str]] = {}
    for residual in outcome.report.residuals:
        actions.setdefault(residual.tensor, []).append(residual.action)
    found.update(verdicts[name] for name in layers)
    for tensor in tensors:
        found.update(actions.get(tensor, ["into a layer"]))
    return found


def _matrix(outcomes: list[Outcome]) -> str:
    columns = [*dict.fromkeys(EXPORTERS.values()), POST_PROCESSED]
    cells: dict[tuple[str, str], Counter[str]] = {}
    for outcome in outcomes:
        patterns = Patterns(MODELS / outcome.name / "model.onnx")
        for label in PATTERNS:
            key = (label, outcome.exporter)
            cells.setdefault(key, Counter()).update(_happened(outcome, *patterns.find(label)))
    lines = ["| pattern | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for label, text in PATTERNS.items():
        row = []
        for column in columns:
            counts = cells.get((label, column), Counter())
            row.append("<br>".join(f"{what} {n}" for what, n in sorted(counts.items()) if n) or "–")
        lines.append(f"| **{label}** {text} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def make_page(folder: Path, convert: Convert = convert) -> str:
    """The text of the page; the models are converted into a folder."""
    outcomes = [outcome(name, folder, convert) for name in ALL_MODELS]
    models = "| model | exporter | int8 layers | quantizers of no layer |\n|---|---|---|---|\n"
    models += "".join(_model_row(o) + "\n" for o in outcomes)
    floats = "".join(row + "\n" for o in outcomes if o.report for row in float_rows(o.name, o.report))
    by_exporter = {e: [o for o in outcomes if o.exporter == e] for e in [*EXPORTERS.values(), POST_PROCESSED]}
    pairs = PAIRS_HEAD + "".join(_pairs_row(*of) + "\n" for of in by_exporter.items())
    return HEAD + models + pairs + FLOAT_HEAD + floats + MATRIX_HEAD + _matrix(outcomes)


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        PAGE.write_text(make_page(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
