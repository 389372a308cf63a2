"""Write docs/cli.md, docs/api.md and docs/reasons.md from what the code says: python tests/reference_pages.py."""

from __future__ import annotations

import os
from pathlib import Path

import amct_onnx
from amct_onnx.cli.command import parser_of
from amct_onnx.graph.reasons import GROUPS

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLUMNS = "100"


def cli_page() -> str:
    """Each verb's help, as it is printed."""
    os.environ["COLUMNS"] = COLUMNS  # of this process alone
    parser = parser_of()
    (verbs,) = (a for a in parser._actions if isinstance(a.choices, dict))
    parts = [
        "# Command line",
        "Made by `python tests/reference_pages.py` from the parsers; a test compares it.",
        f"```text\n{_without_usage(parser.format_help())}\n```",
    ]
    for name, verb in (verbs.choices or {}).items():
        parts += [f"## {name}", f"```text\n{_without_usage(verb.format_help())}\n```"]
    return "\n\n".join(parts) + "\n"


def _without_usage(text: str) -> str:
    """Versions of Python wrap the usage in their own ways."""
    return text.partition("\n\n")[2].strip()


def api_page() -> str:
    """The public names with their docstrings, which the documentation site fills in."""
    homes = dict(amct_onnx._HOMES)
    names = sorted((n for n in homes if n not in ("AMCT_SO",)), key=lambda n: (n[0].isupper(), n.lower()))
    parts = [
        "# Python",
        "Made by `python tests/reference_pages.py` from the public names; a test compares it. Each is taken from "
        "`amct_onnx`: `from amct_onnx import convert_qat_model`. `convert_model` lies at the vendor's place, "
        "`amct_onnx.convert_model`.",
        "`AMCT_SO` are the `onnxruntime.SessionOptions` under which a Q/DQ model gives its true numbers.",
        "::: amct_onnx.verbs.convert.convert_model.convert_model",
    ]
    parts += [f"::: {homes[name]}.{name}" for name in names]
    return "\n\n".join(parts) + "\n"


def reasons_page() -> str:
    """Each reason code under a heading of its own, to which a link can point."""
    parts = [
        "# Why a layer stays float",
        "Made by `python tests/reference_pages.py` from `src/amct_onnx/graph/reasons.py`; a test compares it.",
        "A layer that cannot become int8 stays float, and the model's numbers stay what they were. Table, log and "
        "[ledger](ledger.md) give a code, in `detail` the node, tensor or number at fault, and in `remedy` what would "
        "help in this place. Here is what each code means in general. A model that is refused as a whole gives an "
        "[error](errors.md) instead.",
    ]
    for heading, codes in GROUPS.items():
        parts.append(f"## {heading}")
        for code, (meaning, change) in codes.items():
            parts += [f"### {code}", meaning, f"**What to change:** {change}"]
    return "\n\n".join(parts) + "\n"


PAGES = {"cli.md": cli_page, "api.md": api_page, "reasons.md": reasons_page}


def main() -> None:
    """Write them."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
