"""The log: screen and ./amct_log/amct_onnx.log, opened when the first conversion starts."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from amct_onnx.common.plain_text import shown
from amct_onnx.common.short_names import shortened
from amct_onnx.errors import SettingError, as_typed

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FILE = Path("amct_log") / "amct_onnx.log"
MAX_LINE = 1 << 16
"""Characters of a line in the file: names of some thousand characters stand there whole."""
NAMES = {"names": True}
"""``extra`` of a message that names nodes or tensors, and no path."""
_root = logging.getLogger("amct_onnx")
_chosen: dict[str, str] = {}


if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # Python 3.10 cannot subscript it


class _ModuleLogger(_Adapter):
    def process(self, msg: object, kwargs: object) -> tuple[str, object]:  # type: ignore[override]
        return f"[AMCT]:[{(self.extra or {})['module_name']}]: {as_typed(str(msg))}", kwargs


class _LineFormatter(logging.Formatter):
    """One line for each message: a name in it can neither forge another line nor command a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without traceback."""
        return shown(super().formatMessage(record), MAX_LINE)


class _ScreenFormatter(logging.Formatter):
    """The same on the screen, where long names lose their middle."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without traceback."""
        text = super().formatMessage(record)
        return shown(shortened(text) if getattr(record, "names", False) else text)


class _LogFile(logging.FileHandler):
    """Appends to a regular file of one name only; a file that fails later ends the log, not the work.

    Raises:
        OSError: It or its folder is a link, it has a second name, there is a pipe, a device or a folder in its place,
            or it cannot be opened.
    """

    def _open(self) -> TextIOWrapper:
        # a planted link must not append to other files, a pipe without reader must not block
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        for path in (os.path.dirname(self.baseFilename), self.baseFilename):
            if os.path.islink(path):
                raise OSError(0, f"{os.path.basename(path)} is a link")
        handle = os.open(self.baseFilename, flags, 0o666)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "it is not a regular file")
            if status.st_nlink > 1:
                raise OSError(0, "it is a file of another name as well")
            return os.fdopen(handle, "a", encoding=self.encoding)
        except BaseException:
            os.close(handle)
            raise

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once that the file ends; the line itself has gone to the screen already."""
        error = sys.exc_info()[1]
        _root.removeHandler(self)
        with contextlib.suppress(OSError):  # what could not be written is tried again
            self.close()
        reason = getattr(error, "strerror", None) or error
        get_logger("Utils").warning("The log file ends here: %s cannot be written (%s)", LOG_FILE, reason)


def get_logger(module: str) -> _ModuleLogger:
    """The logger whose lines name the given module of the tool."""
    return _ModuleLogger(_root, {"module_name": module})


def _level(kind: str, variable: str) -> int:
    name = _chosen.get(kind, os.environ.get(variable, "INFO"))
    if name.upper() not in LEVELS:
        raise SettingError(f"{variable}: '{name}' is not a log level. Use one of {', '.join(LEVELS)}.")
    return int(getattr(logging, name.upper()))


def set_logging_level(print_level: str = "info", save_level: str = "info") -> None:
    """Set the levels of screen and file; they win over AMCT_LOG_LEVEL and AMCT_LOG_FILE_LEVEL.

    Raises:
        SettingError: A level other than debug, info, warning, error.
    """
    for name in (print_level, save_level):
        if str(name).upper() not in LEVELS:
            raise SettingError(f"'{name}' is not a log level. Use one of {', '.join(LEVELS)}.")
    _chosen.update(print=print_level, save=save_level)
    for handler in _root.handlers:
        handler.setLevel(_level("save", "") if isinstance(handler, logging.FileHandler) else _level("print", ""))


def quiet_screen() -> None:
    """Show errors alone on the screen; the log file keeps its level."""
    _chosen["print"] = "error"
    for handler in _root.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


def start_log() -> None:
    """Open screen and file handlers once; a file that cannot be opened leaves the screen only.

    Raises:
        SettingError: An environment variable does not name a log level.
    """
    print_level, save_level = _level("print", "AMCT_LOG_LEVEL"), _level("save", "AMCT_LOG_FILE_LEVEL")
    if _root.handlers:
        return
    _root.setLevel(logging.DEBUG)
    _root.propagate = False
    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(print_level)
    screen.setFormatter(_ScreenFormatter("%(levelname)s - %(message)s"))
    _root.addHandler(screen)
    try:
        LOG_FILE.parent.mkdir(exist_ok=True)
        file = _LogFile(LOG_FILE, encoding="utf-8")
    except OSError as error:
        get_logger("Utils").warning("No log file: %s cannot be opened (%s)", LOG_FILE, error.strerror)
        return
    file.setLevel(save_level)
    file.setFormatter(_LineFormatter("%(asctime)s - %(levelname)s - %(message)s"))
    _root.addHandler(file)
