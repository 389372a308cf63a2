"""Write the tables of docs/check.md: ``python -m amct_onnx.verbs.check.document docs/check.md``.

The text between two marker lines is replaced; the rest of the page is written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

from amct_onnx.device.chips import CHIPS, Chip
from amct_onnx.verbs.check.cann_versions import CANN_VERSIONS
from amct_onnx.verbs.check.report import SEVERITIES
from amct_onnx.verbs.check.rule import Rule
from amct_onnx.verbs.check.rules import RULES


def rules_table() -> str:
    """All rules as Markdown, one table for each severity."""
    parts = []
    for severity in SEVERITIES:
        parts += [
            f"### {severity.capitalize()}s",
            "",
            "| rule | products | CANN | why | remedy | source |",
            "|---|---|---|---|---|---|",
        ]
        parts += [_rule_row(rule) for rule in RULES if rule.severity == severity]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _rule_row(rule: Rule) -> str:
    names = [p.name for p in CHIPS if rule.chips(p)]
    where = "all" if len(names) == len(CHIPS) else ", ".join(names)
    versions = "all" if rule.versions == CANN_VERSIONS else ", ".join(rule.versions)
    cells = (f"`{rule.id}`: {rule.title}", where, versions, rule.why, rule.remedy, rule.source)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def products_table() -> str:
    """The products as Markdown."""
    rows = [
        "| product | `--soc_version`, for example | architecture | quantizes in | deq_scale checked | AscendDequant → "
        "AscendQuant | Conv of ≤ 16 channels | int8 Conv 3-D | int4 | float16 deq_scale | source |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows += ["| " + " | ".join(_product_cells(p)) + " |" for p in CHIPS]
    return "\n".join(rows) + "\n"


def _product_cells(product: Chip) -> tuple[str, ...]:
    return (
        product.name,
        ", ".join(product.soc_versions),
        product.isa,
        "float16" if product.float16_chain else "float32",
        product.deq_scale_shape,
        product.requant_fusion or "left alone",
        _few_channels(product),
        "listed" if product.conv3d else "not established",
        product.int4 or "not established",
        "refused" if product.uint64_deq_scale_only else "taken" if product.float16_deq_scale else "not established",
        product.source,
    )


def _few_channels(product: Chip) -> str:
    seen = "rolled back to float" if product.small_channel_rollback else "not established"
    return f"{seen}; the first one can stay int8" if product.first_layer else seen


SECTIONS = {"rules": rules_table, "products": products_table}


def with_tables(page: str) -> str:
    """A page with the text between its marker lines replaced by the current tables."""
    for name, table in SECTIONS.items():
        start, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, rest = page.split(start)
        page = before + start + table() + end + rest.split(end)[1]
    return page


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_tables(target.read_text(encoding="utf-8")), encoding="utf-8")
