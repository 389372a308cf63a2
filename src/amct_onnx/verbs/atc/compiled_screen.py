"""What became of each layer in the compiled model, as a table on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from amct_onnx.common.console import Names, Part, Sentence, Text, rows_that_matter, table_of
from amct_onnx.common.warning_kinds import first_of_each_kind
from amct_onnx.verbs.atc.compiled_layers import CompiledReport

REMEDY = (
    "A Conv of at most 16 input channels goes back to float by design; see small-channels in docs/check.md. Another "
    "layer lost its chain AscendQuant, layer, AscendDequant: run 'amct_onnx check' on the deploy model."
)


def parts(report: CompiledReport, width: int, *, everything: bool = False) -> Iterator[Part]:
    """One row for each layer, or for those that matter most, and the summary line."""
    headers = ("Layer", "Operator", "Deploy model", "Compiled", "Compiled as", "Fused with")
    table = table_of(*headers, whole=("Operator", "Deploy model", "Compiled"))
    rows, rest = rows_that_matter(report.layers, lambda r: not r.as_intended, everything=everything)
    names = Names(layer.name for _, layer in rows)
    for _, layer in rows:
        style = "green" if layer.as_intended else "red"
        table.add_row(
            names.cell(layer.name),
            layer.op_type,
            layer.intended,
            Text(layer.compiled, style=style),
            Text(", ".join(layer.types) or "-", overflow="fold"),
            Sentence(", ".join(layer.fused_with) or "-"),
        )
    yield table
    if rest:
        yield rest
    details = [f"'{layer.name}': {layer.detail}." for layer in report.layers if not layer.as_intended]
    yield from map(Sentence, details if everything else first_of_each_kind(details, "with --all"))
    if not report.passed:
        yield REMEDY
    yield Text(report.summary())
