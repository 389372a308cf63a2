"""Run a real ATC: pass its output through, and explain the codes that it reports."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from amct_onnx.errors import SettingError
from amct_onnx.verbs.atc.error_codes import codes_in, explain


@dataclass(frozen=True)
class AtcResult:
    """How a run of ATC ended.

    Attributes:
        exit_code: of the process.
        explanations: one paragraph for each known code in its output, in the order of appearance.
    """

    exit_code: int
    explanations: tuple[str, ...]


def find_atc() -> str:
    """Path of the ``atc`` on the PATH.

    Raises:
        SettingError: There is none.
    """
    found = shutil.which("atc")
    if found is None:
        raise SettingError(
            "No atc on the PATH. Source the set_env.sh of your CANN installation, or have the line printed only, and "
            "run it where ATC is."
        )
    return found


def run_atc(words: Sequence[str], program: str, output: TextIO) -> AtcResult:
    """Run ATC and copy its output (both streams, in order) line by line.

    Args:
        words: the command line; its first word is replaced by program.
        program: path of the executable.
        output: where ATC's lines go.

    Raises:
        SettingError: The program cannot be started.
    """
    seen: dict[str, None] = {}
    line = [program, *words[1:]]
    try:
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
        )
    except OSError as error:
        raise SettingError(
            f"{program}: cannot be started ({error.strerror or error}). Check the installation."
        ) from error
    with process:
        assert process.stdout is not None
        for text in process.stdout:
            output.write(text)
            output.flush()
            seen.update(dict.fromkeys(codes_in(text)))
    return AtcResult(process.returncode, tuple(filter(None, map(explain, seen))))
