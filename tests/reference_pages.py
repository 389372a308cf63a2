"""Write docs/cli.md, docs/api.md and docs/reasons.md from what the code says: python tests/reference_pages.py."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import amct_onnx
from amct_onnx.cli.command import parser_of
from amct_onnx.common.json_values import JsonReport
from amct_onnx.graph.reasons import GROUPS
from amct_onnx.verbs.convert.convert_model import convert_model
from schema_files import dataclasses_of

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


AMCT_SO = "the `onnxruntime.SessionOptions` under which a Q/DQ model gives its true numbers."


def api_page() -> str:
    """The public names in tables, and their docstrings, which the documentation site fills in."""
    named = {n: getattr(amct_onnx, n) for n in amct_onnx._HOMES if n != "AMCT_SO"} | {"convert_model": convert_model}
    public = dict(sorted(named.items(), key=lambda item: item[0].lower()))
    errors = {n: o for n, o in public.items() if isinstance(o, type) and issubclass(o, BaseException)}
    classes = {n: o for n, o in public.items() if isinstance(o, type) and n not in errors}
    functions = {n: o for n, o in public.items() if n not in classes and n not in errors}
    held = held_classes(classes)
    parts = [
        "# Python",
        "Made by `python tests/reference_pages.py` from the public names; a test compares it. On the documentation "
        "site the signatures and descriptions follow the tables; elsewhere `help(amct_onnx.check)` prints them. Each "
        "name is taken from `amct_onnx`: `from amct_onnx import convert_qat_model`. `convert_model` lies at the "
        f"vendor's place, `amct_onnx.convert_model`. `AMCT_SO`: {AMCT_SO}",
        "## Functions, in short",
        _table(("function", "what it does"), functions),
        "## Classes, in short",
        "A report has its fields as attributes, `summary()` for one line, and `to_dict()` for plain JSON values, which "
        "[the schemas](json.md) describe: `report.layers[0].verdict`, `report.to_dict()`.",
        _table(("class", "what it is"), classes),
        "## Errors, in short",
        _table(("error", "when"), errors),
        "## What the reports hold, in short",
        "These are not imported: a report's fields hold them.",
        _table(
            ("class", "what it is", "where"), {k.__name__: k for k in held}, {k.__name__: w for k, w in held.items()}
        ),
        "## Functions",
        *_entries(functions),
        "## Classes",
        *_entries(classes),
        "## Errors",
        *_entries(errors),
        "## What the reports hold",
        *_entries({k.__name__: k for k in held}),
    ]
    return "\n\n".join(parts) + "\n"


def held_classes(public: dict[str, type]) -> dict[type, str]:
    """The dataclasses that the fields of public reports name and that are not public, and one field that holds each."""
    found: dict[type, str] = {}
    for report in public.values():
        if issubclass(report, JsonReport):
            for kind in dataclasses_of(report):
                for field, hint in get_type_hints(kind).items():
                    for part in (hint, *getattr(hint, "__args__", ())):
                        if hasattr(part, "__dataclass_fields__") and part.__name__ not in public:
                            found.setdefault(part, f"{kind.__name__}.{field}")
    return dict(sorted(found.items(), key=lambda item: item[0].__name__))


def _table(head: tuple[str, ...], rows: Mapping[str, object], where: Mapping[str, str] | None = None) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, what in rows.items():
        more = f" `{where[name]}` |" if where else ""
        lines.append(f"| [`{name}`](#{name}) | {first_sentence(what)} |{more}")
    return "\n".join(lines)


def first_sentence(what: object) -> str:
    """Of a docstring, for the cell of a table."""
    return (inspect.getdoc(what) or "").partition("\n")[0].replace("``", "`").replace("|", "\\|")


def _entries(objects: Mapping[str, Any]) -> list[str]:
    """Anchors and the lines that mkdocstrings replaces."""
    entries = []
    for name, what in objects.items():
        is_report = isinstance(what, type) and issubclass(what, JsonReport)
        options = "\n    options:\n      inherited_members: [to_dict]" if is_report else ""
        entries.append(f'<a id="{name}"></a>\n\n::: {what.__module__}.{name}{options}')
    return entries


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
