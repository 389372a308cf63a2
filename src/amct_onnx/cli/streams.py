"""Standard streams that are closed, cannot hold every character, or are read by a process that ends early."""

from __future__ import annotations

import os
import sys

from amct_onnx.common.plain_text import escaped

TYPE_CHECKING = False  # as good as typing's for type checkers, without its import time
if TYPE_CHECKING:
    from typing import Any


def prepare_streams() -> None:
    """Replace closed streams; characters that a stream's encoding lacks are written as escapes."""
    _occupy_standard_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _occupy_standard_descriptors() -> None:
    """Occupy descriptors 0 to 2: an output opened as 1 or 2 would get what ONNX Runtime or a child process writes."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)


def print_json(content: dict[str, Any]) -> None:
    """Print JSON on stdout, in ASCII where the encoding is not UTF-8."""
    import json  # --help needs none

    unicode = (sys.stdout.encoding or "").replace("-", "").lower() == "utf8"
    print(escaped(json.dumps(content, indent=2, ensure_ascii=not unicode)))


def drop_stdout() -> None:
    """Drop stdout after a broken pipe, so that Python's own flush at the end does not fail again."""
    _drop(sys.stdout)


def say_last(text: str) -> None:
    """Print a last line on stderr; the terminal may be gone."""
    for stream, words in ((sys.stderr, text + "\n"), (sys.stdout, "")):
        try:
            stream.write(words)
            stream.flush()
        except OSError:
            _drop(stream)


def _drop(stream: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), stream.fileno())
