"""Parse the command line, run its verb, and report errors."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module

from amct_onnx import __version__
from amct_onnx.cli.exit_codes import EXIT_BAD_INPUT, EXIT_BROKEN_PIPE
from amct_onnx.cli.limits import check_limits, limit_met
from amct_onnx.cli.parser import VERBS, Help, Parser
from amct_onnx.cli.streams import drop_stdout, prepare_streams, say_last
from amct_onnx.common.plain_text import shown
from amct_onnx.errors import AmctError, command_line


def parser_of(wanted: Collection[str] = tuple(VERBS)) -> argparse.ArgumentParser:
    """The parser of the command.

    Args:
        wanted: verbs whose modules are imported and whose options are declared; of the others the name is known.
    """
    parser = Parser(
        prog="amct_onnx",
        description="Turn a QAT ONNX model into the form that the Ascend compiler ATC accepts.",
        formatter_class=Help,
    )
    parser.add_argument("--version", action="version", version=f"amct_onnx {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, does in VERBS.items():
        if name not in wanted:
            verbs.add_parser(name, help=does, formatter_class=Help)  # argparse's own would import shutil
            continue
        module = import_module(f"amct_onnx.cli.{name}")
        verb = module.add_parser(verbs)
        verb.add_argument("--debug", action="store_true", help="show tracebacks")
        verb.set_defaults(run=module.run, alone=False)
    return parser


def run_command(argv: Sequence[str] | None) -> int:
    """Run a command and return its exit code, see ``exit_codes``.

    Raises:
        KeyboardInterrupt: A signal asked it to end.
    """
    with command_line():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    prepare_streams()
    words = sys.argv[1:] if argv is None else argv
    parser = parser_of([w for w in words if not w.startswith("-")][:1])
    arguments = parser.parse_args(argv)
    if arguments.verb is None:
        parser.print_help()
        return EXIT_BAD_INPUT
    try:
        check_limits()
        from amct_onnx.cli.late_imports import import_late  # --help does without

        arguments.alone = import_late()
        if arguments.alone:
            atexit.register(gc.freeze)  # the system frees everything at once: Python need not look for cycles first
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except (BrokenPipeError, SystemExit):  # rich turns the one into the other
        drop_stdout()
        return EXIT_BROKEN_PIPE
    except Exception as error:
        if arguments.debug or os.environ.get("AMCT_LOG_LEVEL", "").upper() == "DEBUG":
            import traceback

            traceback.print_exc()
        say_last(f"amct_onnx: error: {shown(_paragraph(error))}")
        return EXIT_BAD_INPUT


def _paragraph(error: Exception) -> str:
    limit = limit_met(error)
    if limit:
        return limit
    if isinstance(error, AmctError):
        return str(error)
    if isinstance(error, OSError):
        place = "stdout or a file" if error.filename is None else error.filename
        return (
            f"{place}: cannot be used ({error.strerror or error}). Check the path, its permissions and the space left."
        )
    return f"unexpected {type(error).__name__}: {error}. Run again with --debug for the traceback."
