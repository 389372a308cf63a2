"""A call of ATC on a screen or in a notebook: the line, ready to copy, and what to know of it."""

from __future__ import annotations

from collections.abc import Iterator

from amct_onnx.common.console import Line, Part, Text, command_lines
from amct_onnx.verbs.atc.command_line import AtcCommand


def parts(command: AtcCommand, width: int) -> Iterator[Part]:
    """The line, the files that it names and that are not written yet, warnings and hints."""
    yield from map(Line, command_lines(command.words, width))
    for path, _ in command.files:
        yield Text(f"The line reads {path}, which 'amct_onnx atc' writes.")
    for warning in command.warnings:
        yield Text(f"Warning: {warning}")
    yield from map(Text, command.hints)
