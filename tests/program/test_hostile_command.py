"""The command on arguments, streams and folders that are not what it hopes for: one line, exit code 2, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import amct_onnx
from support.golden_models import GOLDENS
from support.small_models import qdq_model
from support.typed_command import in_process

SOURCE = GOLDENS / "qat" / "linear2d" / "qat.onnx"
COMMAND = [sys.executable, "-m", "amct_onnx"]


def run(*arguments: str | bytes | Path, shell: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """The command with its output captured; ``shell`` stands behind it, for example a pipe."""
    line: list[str | bytes | Path] = [*COMMAND, *arguments]
    if shell:
        line = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *line]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AMCT_")} | variables
    result = subprocess.run(line, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    assert b"Traceback" not in result.stderr and b"unexpected" not in result.stderr, result.stderr
    return result


def refused(result: subprocess.CompletedProcess[bytes]) -> str:
    """The one line of an error."""
    assert result.returncode == 2, result
    line = result.stderr.decode(errors="replace").splitlines()[-1]
    assert line.startswith("amct_onnx: error: "), line
    return line


@pytest.mark.parametrize("kind", ["pipe", "/dev/null", "/dev/zero", "."])
def test_model_that_is_no_file(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(amct_onnx.ModelFileError, match="not a regular file"):
        amct_onnx.convert_qat_model(kind, tmp_path / "m")
    with pytest.raises(amct_onnx.ModelFileError, match="not a regular file"):
        amct_onnx.check(kind)


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000])
def test_model_whose_name_no_file_can_have(tmp_path: Path, name: str) -> None:
    """Found in check and atc, which gave the error of the system and no advice."""
    for read in (
        lambda: amct_onnx.convert_qat_model(name, tmp_path / "m"),
        lambda: amct_onnx.check(name),
        lambda: amct_onnx.doctor(name),
    ):
        with pytest.raises(amct_onnx.ModelFileError, match="cannot be read .File name too long.. Check"):
            read()


@pytest.mark.parametrize("which", ["m_deploy_model.onnx", "record.txt"])
def test_output_that_is_a_pipe_or_device_is_not_replaced(tmp_path: Path, which: str) -> None:
    """Found by ``--record_file /dev/null`` as root: the rename put a file in its place."""
    os.mkfifo(tmp_path / which)
    with pytest.raises(amct_onnx.OutputError, match=f"{which}: is a device or pipe"):
        amct_onnx.convert_qat_model(SOURCE, tmp_path / "m", tmp_path / "record.txt")
    assert [p.name for p in tmp_path.iterdir() if p.name != "amct_log"] == [which]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """The model may have one; the outputs may not, since they name each other in JSON and protobuf."""
    named = os.path.join(os.fsencode(tmp_path), b"\xff.onnx")
    os.rename(qdq_model(tmp_path), named)
    assert run("convert", "--model", named, "--save_path", "m").returncode == 0
    assert json.loads((tmp_path / "m_quant.json").read_text())["model_file"].endswith("\\xff.onnx")
    line = refused(run("convert", "--model", named, "--save_path", b"\xfe"))
    assert "cannot be used" in line
    assert len([p for p in tmp_path.iterdir() if p.suffix == ".json"]) == 1


def test_streams_that_hold_ascii_only() -> None:
    result = run("convert", "--model", SOURCE, "--save_path", "ü", "--json", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert json.loads(result.stdout)["deploy_model"].endswith("/ü_deploy_model.onnx")


@pytest.mark.parametrize("option", ["--json", ""])
def test_reader_of_stdout_that_ends_early(tmp_path: Path, option: str) -> None:
    options = [option] if option else []
    assert run("convert", "--model", SOURCE, "--save_path", "m", *options, shell="| true").returncode == 141
    assert (tmp_path / "m_deploy_model.onnx").exists()


def test_closed_streams(tmp_path: Path) -> None:
    assert run("convert", "--model", SOURCE, "--save_path", "m", shell=">&- 2>&-").returncode == 0
    assert (tmp_path / "m_deploy_model.onnx").exists()


@pytest.mark.parametrize("closed", ["<&- 2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_output_never_takes_the_place_of_a_closed_stream(tmp_path: Path, closed: str) -> None:
    """Found with stdin and stderr closed: a model became descriptor 2, where ONNX Runtime writes its warnings."""
    code = """
from amct_onnx.cli.streams import prepare_streams
prepare_streams()
with open("descriptor", "w") as file:
    file.write(str(file.fileno()))
"""
    subprocess.run(["bash", "-c", f'"$@" {closed}', "bash", sys.executable, "-c", code], check=True)
    assert int((tmp_path / "descriptor").read_text()) > 2


def test_full_stdout() -> None:
    line = refused(run("check", "--model", SOURCE, shell="> /dev/full"))
    assert "stdout or a file: cannot be used (No space left on device). Check the path" in line


@pytest.mark.parametrize("option", ["--data", "--labels", "--evaluator", "--board"])
def test_argument_that_no_file_can_be_named(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Found in compare, which gave the error of the system and no advice."""
    amct_onnx.convert_qat_model(SOURCE, tmp_path / "m")
    np.save(tmp_path / "x.npy", np.zeros((1, 1), np.float32))
    name = "a" * 300
    values = {"--model": str(SOURCE), "--save_path": "m", "--data": "x.npy", option: name}
    result = in_process(capsys, "compare", *(text for pair in values.items() for text in pair))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("amct_onnx: error: ")
    assert f"{name}: cannot be used (File name too long). Check the path" in line


def test_folder_that_was_deleted(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    inside = f'cd {gone} && rmdir {gone} && exec "$@"'
    line = ["bash", "-c", inside, "bash", *COMMAND, "convert", "--model", str(SOURCE), "--save_path"]
    failed = subprocess.run([*line, "m"], capture_output=True)
    assert "does not exist any more" in refused(failed)
    gone.mkdir()
    assert subprocess.run([*line, str(tmp_path / "m")], capture_output=True).returncode == 0


def test_no_home(tmp_path: Path) -> None:
    line = ["env", "-i", *COMMAND, "check", "--model", str(SOURCE)]
    assert b"Traceback" not in subprocess.run(line, capture_output=True).stderr
