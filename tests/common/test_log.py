"""Log lines, levels and the log file, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import amct_onnx

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - (DEBUG|INFO|WARNING|ERROR) - \[AMCT\]:\[Utils\]: text")
EACH = """
from amct_onnx.common.log import get_logger, start_log
start_log()
start_log()
for level in ("debug", "info", "warning", "error"):
    getattr(get_logger("Utils"), level)("text")
"""
ALL = ["DEBUG", "INFO", "WARNING", "ERROR"]


def run(code: str = EACH, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AMCT_")} | variables
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def file_lines(folder: Path) -> list[str]:
    return (folder / "amct_log" / "amct_onnx.log").read_text().splitlines()


def levels_in_file(folder: Path) -> list[str]:
    matches = [LINE.fullmatch(line) for line in file_lines(folder)]
    return [match[1] if match else "no match" for match in matches]


def screen(levels: list[str]) -> list[str]:
    return [f"{level} - [AMCT]:[Utils]: text" for level in levels]


def test_default_is_info_on_stderr_and_in_the_file(tmp_path: Path) -> None:
    result = run()
    assert result.stdout == ""
    assert result.stderr.splitlines() == screen(ALL[1:])
    assert levels_in_file(tmp_path) == ALL[1:]


def test_long_names_are_whole_in_the_file_alone(tmp_path: Path) -> None:
    """Paths can be copied from the screen as well."""
    names = [f"model/{'block/' * 100}{end}" for end in "abcd"]
    sentence = f"Nodes {', '.join(repr(n) for n in names)} are in the way."
    code = "from amct_onnx.common.log import NAMES, get_logger, start_log\nstart_log()\n"
    code += (
        f"get_logger('Utils').warning('%s', {sentence!r}, extra=NAMES)\nget_logger('Utils').info('%s', {names[0]!r})"
    )
    result = run(code)
    told, path = result.stderr.splitlines()
    assert len(told) < 350 and len(set(re.findall("'(.*?)'", told))) == len(names) and path.endswith(names[0])
    assert [line.partition("]: ")[2] for line in file_lines(tmp_path)] == [sentence, names[0]]


def test_modes_of_folder_and_file(tmp_path: Path) -> None:
    """They follow the umask, and a file's own mode is not changed."""
    before = os.umask(0o027)
    try:
        run()
        assert (tmp_path / "amct_log").stat().st_mode & 0o777 == 0o750
        file = tmp_path / "amct_log" / "amct_onnx.log"
        assert file.stat().st_mode & 0o777 == 0o640
        file.chmod(0o600)
        run()
        assert file.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_each_variable_sets_its_own_level(tmp_path: Path, index: int, spelling: object) -> None:
    assert callable(spelling)
    result = run(AMCT_LOG_LEVEL=spelling(ALL[index]), AMCT_LOG_FILE_LEVEL=spelling(ALL[3 - index]))
    assert result.stderr.splitlines() == screen(ALL[index:])
    assert levels_in_file(tmp_path) == ALL[3 - index :]


@pytest.mark.parametrize("variable", ["AMCT_LOG_LEVEL", "AMCT_LOG_FILE_LEVEL"])
def test_bad_variable_is_named_with_its_value(tmp_path: Path, variable: str) -> None:
    result = run(**{variable: "loud"})
    assert f"SettingError: {variable}: 'loud' is not a log level" in result.stderr
    assert not (tmp_path / "amct_log").exists()


@pytest.mark.parametrize("late", [False, True])
def test_set_logging_level_wins_over_the_environment(tmp_path: Path, late: bool) -> None:
    change = "import amct_onnx; amct_onnx.set_logging_level('Error', 'debug')\n"
    start = "from amct_onnx.common.log import start_log; start_log()\n" if late else ""
    result = run(start + change + EACH, AMCT_LOG_LEVEL="debug", AMCT_LOG_FILE_LEVEL="error")
    assert result.stderr.splitlines() == screen(["ERROR"])
    assert levels_in_file(tmp_path) == ALL


def test_set_logging_level_refuses_other_words() -> None:
    with pytest.raises(amct_onnx.SettingError, match="'loud'"):
        amct_onnx.set_logging_level("loud")
    with pytest.raises(ValueError, match="'loud'"):
        amct_onnx.set_logging_level("info", "loud")


def test_log_folder_that_cannot_be_made_leaves_the_screen(tmp_path: Path) -> None:
    (tmp_path / "amct_log").write_text("a file is in the way")
    result = run()
    assert result.returncode == 0
    first, *rest = result.stderr.splitlines()
    assert first.startswith("WARNING - [AMCT]:[Utils]: No log file: ")
    assert rest == screen(ALL[1:])


@pytest.mark.parametrize("kind", ["link", "hard link", "linked folder", "device", "pipe", "folder"])
def test_log_file_that_is_no_regular_file_is_left_alone(tmp_path: Path, kind: str) -> None:
    """Found by a link to the model, which got the lines appended; a pipe blocked, a device lost its mode."""
    if kind == "linked folder":
        (tmp_path / "private").mkdir()
        (tmp_path / "amct_log").symlink_to("private")
    else:
        (tmp_path / "amct_log").mkdir()
    model, log = tmp_path / "model.onnx", tmp_path / "amct_log" / "amct_onnx.log"
    model.write_text("weights")
    model.chmod(0o600)
    if kind in ("link", "device"):
        log.symlink_to(model if kind == "link" else "/dev/null")
    elif kind == "hard link":
        os.link(model, log)
    elif kind in ("pipe", "folder"):
        os.mkfifo(log) if kind == "pipe" else log.mkdir()
    mode = os.stat("/dev/null").st_mode
    result = run()
    first, *rest = result.stderr.splitlines()
    assert first.startswith("WARNING - [AMCT]:[Utils]: No log file: ")
    assert rest == screen(ALL[1:])
    assert model.read_text() == "weights"
    assert not any(tmp_path.glob("private/*"))
    assert model.stat().st_mode & 0o777 == 0o600
    assert os.stat("/dev/null").st_mode == mode


def test_log_file_on_a_full_disk_is_said_once_without_a_traceback(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (70, 70))\n"
    result = run(limit + EACH)
    warning = (
        "WARNING - [AMCT]:[Utils]: The log file ends here: amct_log/amct_onnx.log cannot be written (File too large)"
    )
    assert result.returncode == 0
    assert [line for line in result.stderr.splitlines() if line != warning] == screen(ALL[1:])
    assert result.stderr.count(warning) == 1


def test_root_logger_gets_nothing() -> None:
    result = run("import logging; logging.basicConfig(format='root %(message)s', level=0)\n" + EACH)
    assert "root " not in result.stderr
