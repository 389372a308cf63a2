"""The parser of the command line: it names the option that was meant, and each verb's help ends with examples."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from amct_onnx.cli.exit_codes import EXIT_BAD_INPUT

TYPE_CHECKING = False  # as good as typing's for type checkers, without its import time
if TYPE_CHECKING:
    from typing import Any, NoReturn

VERBS = {
    "convert": "write the deploy and fake-quant models of a QAT model",
    "bias": "write the source model with the rounded biases of its int8 form",
    "check": "tell whether ATC will accept a deploy model, from this tool or any other",
    "atc": "print the command line of ATC for a deploy model, run it, or tell which layers it compiled as int8",
    "simulate": "run a deploy model on the CPU with a device's arithmetic",
    "compare": "compare source, fake-quant and deploy model over data: show where accuracy is lost, and why",
    "doctor": "show which ONNX Runtime settings give wrong numbers for a Q/DQ model on this CPU",
    "demo": "take a small QAT model of handwritten digits from convert to atc, and write a report",
}
"""Verb -> what it does, in the order in which --help lists them. The module of a verb has its name."""

ENVIRONMENT = """\
environment variables:
  AMCT_LOG_LEVEL       on the screen: DEBUG, INFO (default), WARNING, ERROR
  AMCT_LOG_FILE_LEVEL  the same for amct_log/amct_onnx.log
  COLUMNS              width of the tables; in a pipe they take what they need
  NO_COLOR             any value: no colours

Each option may be spelled with dashes as well: --save-path."""


DEFAULT_COLUMNS = 80


class Parser(argparse.ArgumentParser):
    """Refuses what it does not know by itself, so that the error names the nearest thing that the verb knows."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The namespace, and an empty list: nothing is ever left over.

        Raises:
            SystemExit: Usage.
        """
        self._words = sys.argv[1:] if args is None else list(args)
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return known, rest

    def error(self, message: str) -> NoReturn:
        """End with a usage error; an option that does not exist is named before what is missing without it."""
        text = "; ".join(self._unknown()) or message
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {text}. Run '{self.prog} --help' for what it takes.\n")

    def _unknown(self) -> list[str]:
        options = [s for s in self._option_string_actions if s.startswith("--")]
        verbs = [n for a in self._actions if isinstance(a, argparse._SubParsersAction) for n in a.choices]
        own = self._words[: self._words.index("--")] if "--" in self._words else self._words
        if verbs:
            verb = next((n for n, w in enumerate(own) if not w.startswith("-")), len(own))
            if verb < len(own) and own[verb] not in verbs:
                return [f"unknown verb '{own[verb]}'{_nearest(own[verb], verbs)}"]
            own = own[:verb]
        names = dict.fromkeys(w.partition("=")[0] for w in own if w.startswith("--"))
        unknown = [n for n in names if not any(o.startswith(n) for o in options)]
        return [f"unknown option '{n}'{_nearest(n, options)}" for n in unknown]


def _nearest(word: str, known: Sequence[str]) -> str:
    import difflib  # only an error needs it

    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def add_verb(
    verbs: Any, name: str, *, examples: tuple[str, ...], description: str | None = None
) -> argparse.ArgumentParser:
    """The parser of a verb.

    Args:
        verbs: what ``add_subparsers`` returned.
        name: as it is typed.
        examples: commands, one per line, shown at the end of the help.
        description: more than ``does``, for the verb's own help.
    """
    does = VERBS[name]
    lines = ["examples:", *(f"  {e}" for e in examples), "", ENVIRONMENT]
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}." + (f" {description}" if description else ""),
        epilog="\n".join(lines),
        formatter_class=Help,
    )
    return parser


def _columns() -> int:
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1).columns or DEFAULT_COLUMNS
    except (OSError, ValueError):
        return DEFAULT_COLUMNS


class Help(argparse.HelpFormatter):
    """Wraps descriptions, and leaves the examples as they are."""

    def __init__(self, prog: str) -> None:
        """As wide as the terminal; argparse would import shutil to learn that."""
        super().__init__(prog, width=_columns() - 2)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """The vendor's spelling with underscores alone: the two of a long option fill a line."""
        spelled = action.option_strings
        action.option_strings = [o for o in spelled if not (o.startswith("--") and "-" in o[2:])]
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = spelled

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)
