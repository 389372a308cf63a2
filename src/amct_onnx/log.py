"""The log: screen and ./amct_log/amct_onnx.log, opened when the first conversion starts."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from amct_onnx.errors import SettingError
from amct_onnx.plain_text import shown

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FILE = Path("amct_log") / "amct_onnx.log"
_root = logging.getLogger("amct_onnx")
_chosen: dict[str, str] = {}


if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # Python 3.10 cannot subscript it


class _ModuleLogger(_Adapter):
    def process(self, msg: object, kwargs: object) -> tuple[str, object]:  # type: ignore[override]
        return f"[AMCT]:[{(self.extra or {})['module_name']}]: {msg}", kwargs


class _LineFormatter(logging.Formatter):
    """One line for each message: a name in it can neither forge another line nor command a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without traceback."""
        return shown(super().formatMessage(record))


def get_logger(module: str) -> _ModuleLogger:
    """The logger whose lines name the given module of the tool."""
    return _ModuleLogger(_root, {"module_name": module})


def _level(kind: str, variable: str) -> int:
    name = _chosen.get(kind, os.environ.get(variable, "INFO"))
    if name.upper() not in LEVELS:
        raise SettingError(f"{variable}: '{name}' is no log level. Use one of {', '.join(LEVELS)}.")
    return int(getattr(logging, name.upper()))


def set_logging_level(print_level: str = "info", save_level: str = "info") -> None:
    """Set the levels of screen and file; they win over AMCT_LOG_LEVEL and AMCT_LOG_FILE_LEVEL.

    Raises:
        SettingError: A level other than debug, info, warning, error.
    """
    for name in (print_level, save_level):
        if str(name).upper() not in LEVELS:
            raise SettingError(f"'{name}' is no log level. Use one of {', '.join(LEVELS)}.")
    _chosen.update(print=print_level, save=save_level)
    for handler in _root.handlers:
        handler.setLevel(_level("save", "") if isinstance(handler, logging.FileHandler) else _level("print", ""))


def start_log() -> None:
    """Open screen and file handlers once; an unwritable folder leaves the screen only.

    Raises:
        SettingError: An environment variable names no log level.
    """
    print_level, save_level = _level("print", "AMCT_LOG_LEVEL"), _level("save", "AMCT_LOG_FILE_LEVEL")
    if _root.handlers:
        return
    _root.setLevel(logging.DEBUG)
    _root.propagate = False
    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(print_level)
    screen.setFormatter(_LineFormatter("%(levelname)s - %(message)s"))
    _root.addHandler(screen)
    try:
        LOG_FILE.parent.mkdir(mode=0o750, exist_ok=True)
        file = logging.FileHandler(LOG_FILE, encoding="utf-8")
        os.chmod(LOG_FILE, 0o640)
    except OSError as error:
        get_logger("Utils").warning("No log file: %s cannot be opened (%s)", LOG_FILE, error.strerror)
        return
    file.setLevel(save_level)
    file.setFormatter(_LineFormatter("%(asctime)s - %(levelname)s - %(message)s"))
    _root.addHandler(file)
