"""The command line: one module per verb, each with ``add_parser`` and ``run``.

Signals are handled before the heavy imports, so that Ctrl-C during these gives one line as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from amct_onnx.cli.interrupts import one_interrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, see ``exit_codes``."""
    try:
        with one_interrupt():
            from amct_onnx.cli.command import run_command

            return run_command(argv)
    except KeyboardInterrupt as error:
        from amct_onnx.cli.exit_codes import EXIT_INTERRUPTED, exit_code_of
        from amct_onnx.cli.streams import say_last

        code = exit_code_of(getattr(error, "number", None))
        say_last("amct_onnx: interrupted." if code == EXIT_INTERRUPTED else f"amct_onnx: ended by {error}.")
        return code
