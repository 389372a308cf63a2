"""The command line as a user types it: options, exit codes, and what goes to which stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import amct_onnx
from amct_onnx import cli
from amct_onnx.verbs.convert import convert_model
from support.golden_models import MODELS
from support.small_models import qdq_model
from support.typed_command import command, in_process
from support.written_models import write_model

TIDY = MODELS / "torchfx_digitsnet_i8sym_op13" / "model.onnx"


def test_version() -> None:
    assert command("--version").stdout == f"amct_onnx {amct_onnx.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"], ["check", "--help"], ["atc", "--help"]])
def test_help(tmp_path: Path, arguments: list[str]) -> None:
    result = command(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert (arguments[0] if arguments[1:] else "convert") in result.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["convert"], ["convert", "--model", "m"], ["quantize"]])
def test_wrong_usage_is_exit_2(arguments: list[str]) -> None:
    result = command(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(("save", "record"), [("--save_path", "--record_file"), ("--save-path", "--record-file")])
def test_both_spellings(tmp_path: Path, joined: bool, save: str, record: str) -> None:
    pairs = {"--model": TIDY, save: "out/m", record: "out/r.txt"}
    arguments = [f"{k}={v}" for k, v in pairs.items()] if joined else [str(x) for kv in pairs.items() for x in kv]
    assert cli.main(["convert", *arguments]) == 0
    expected = ["m_deploy_model.onnx", "m_fake_quant_model.onnx", "m_quant.json", "r.txt"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == expected


def test_table_names_every_layer_and_has_no_escapes() -> None:
    result = command("convert", "--model", TIDY, "--save_path", "m", "--strict")
    assert result.returncode == 0
    for entry in json.loads(Path("m_quant.json").read_text())["layers"]:
        assert entry["name"] in result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_warnings_of_the_check_are_told_once_a_rule(tmp_path: Path) -> None:
    text = """g (float[n, 32] x) => (float[n, 32] u, float[n, 32] v) {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        w1 = DequantizeLinear(w, s, z) u = MatMul(d, w1) w2 = DequantizeLinear(w, t, z) v = MatMul(d, w2)
    }"""
    factors = {"s": np.float32(2**-20), "t": np.float32(2**-19), "z": np.int8(0)}
    write_model(tmp_path / "in.onnx", text, factors | {"w": np.ones((32, 32), np.int8)})
    result = command("convert", "--model", str(tmp_path / "in.onnx"), "--save_path", "m")
    lines = [line for line in result.stderr.splitlines() if "[Check]" in line]
    # one AscendQuant scale, two deq_scale
    assert [("float16" in line, "(1 more)" in line, "WARNING" in line) for line in lines] == [
        (True, False, True),
        (True, True, True),
    ]
    assert "Findings of the check: 1 x quant-scale-range, 2 x deq-scale-float16-range" in result.stdout


def test_json_is_pure_at_the_loudest_log_level() -> None:
    result = command("convert", "--model", TIDY, "--save_path", "m", "--json", AMCT_LOG_LEVEL="debug")
    assert json.loads(result.stdout)["summary"] == "7 of 7 candidate layers are int8."
    assert "The model file is saved in" in result.stderr


def bad_model(folder: Path, kind: str) -> Path:
    model = folder / "in.onnx"
    if kind == "directory":
        model.mkdir()
    elif kind == "no onnx":
        model.write_text("no onnx file")
    return model


@pytest.mark.parametrize("kind", ["missing", "directory", "no onnx"])
def test_bad_model_is_one_line_and_exit_2(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = bad_model(tmp_path, kind)
    assert cli.main(["convert", "--model", str(model), "--save_path", "out/m"]) == 2
    printed, error = capfd.readouterr()
    assert printed == ""
    assert error.startswith(f"amct_onnx: error: {model}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("flags", "variables"), [(["--debug"], {}), ([], {"AMCT_LOG_LEVEL": "Debug"})])
def test_traceback_on_request_keeps_exit_2(flags: list[str], variables: dict[str, str]) -> None:
    result = command("convert", "--model", "none.onnx", "--save_path", "m", *flags, **variables)
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("amct_onnx: error: none.onnx")


def test_bad_log_level_is_exit_2() -> None:
    result = command("convert", "--model", TIDY, "--save_path", "m", AMCT_LOG_LEVEL="loud")
    assert result.returncode == 2
    assert result.stderr.startswith("amct_onnx: error: AMCT_LOG_LEVEL: 'loud'")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    result = command("convert", "--model", TIDY, "--save_path", "locked/m")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("amct_onnx: error: ")


def test_output_folder_that_is_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert cli.main(["convert", "--model", str(TIDY), "--save_path", "file/m"]) == 2
    assert "Traceback" not in capfd.readouterr().err
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "amct_onnx: interrupted."),
        (
            MemoryError(),
            2,
            "amct_onnx: error: out of memory. Free some, or raise the limit of the process (ulimit -v).",
        ),
        (
            OSError(28, "Full"),
            2,
            "amct_onnx: error: stdout or a file: cannot be used (Full). "
            "Check the path, its permissions and the space left.",
        ),
        (
            RuntimeError("odd"),
            2,
            "amct_onnx: error: unexpected RuntimeError: odd. Run again with --debug for the traceback.",
        ),
    ],
)
def test_failures_inside_the_conversion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.delenv("AMCT_LOG_LEVEL", raising=False)
    monkeypatch.setattr(convert_model, "convert_qat_model", fail)
    assert cli.main(["convert", "--model", "x", "--save_path", "m"]) == code
    assert capsys.readouterr() == ("", text + "\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_during_the_imports_is_one_line(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "__init__.py").write_text("import time; open('importing', 'w'); time.sleep(60)")
    line = [sys.executable, "-m", "amct_onnx", "convert", "--model", TIDY, "--save_path", "m"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def dispositions() -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    with subprocess.Popen(
        list(map(str, line)),
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=dispositions,
    ) as running:
        while not (tmp_path / "importing").exists():
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(number)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == code
    assert errors.startswith("amct_onnx: ") and errors.count("\n") == 1


def test_strict_fails_when_a_layer_stays_float(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("convert", "--model", str(qdq_model(tmp_path, scale=[0.1, 0.2, 0.3])), "--save_path", "m")
    assert cli.main(list(arguments)) == 0
    result = in_process(capsys, *arguments, "--strict")
    assert result.returncode == 1
    assert "float: activation-per-channel" in result.stdout


@pytest.mark.parametrize("record", ["out/m_deploy_model.onnx", "out/m_quant.json", "out", TIDY, "n" * 300])
def test_record_that_cannot_be_written_leaves_everything_as_it_was(tmp_path: Path, record: str | Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "m_deploy_model.onnx").write_text("earlier")
    before = TIDY.read_bytes()
    with pytest.raises(amct_onnx.OutputError):
        amct_onnx.convert_qat_model(TIDY, tmp_path / "out" / "m", record)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["m_deploy_model.onnx"]
    assert (tmp_path / "out" / "m_deploy_model.onnx").read_text() == "earlier"
    assert TIDY.read_bytes() == before


@pytest.mark.parametrize("save_path", [".", "./", "inner/..", ""])
def test_a_path_that_can_only_be_a_folder_gives_no_prefix(tmp_path: Path, save_path: str) -> None:
    (tmp_path / "inner").mkdir()
    report = amct_onnx.convert_qat_model(TIDY, save_path)
    assert Path(report.deploy_model) == tmp_path / "deploy_model.onnx"


def test_replaced_files_are_named_after_they_were_replaced(tmp_path: Path) -> None:
    assert "is replaced" not in command("convert", "--model", TIDY, "--save_path", "m").stderr
    again = command("convert", "--model", TIDY, "--save_path", "m")
    assert again.returncode == 0
    for kind in ("deploy_model.onnx", "fake_quant_model.onnx", "quant.json"):
        assert f"WARNING - [AMCT]:[Utils]: The existing file {tmp_path}/m_{kind} is replaced" in again.stderr
    failed = command("convert", "--model", TIDY, "--save_path", "m", "--record_file", "m_quant.json")
    assert failed.returncode == 2 and "is replaced" not in failed.stderr


def test_residuals_hold_no_quantizer_of_a_converted_layer(tmp_path: Path) -> None:
    """One quantized layer leaves no quantizer over."""
    report = amct_onnx.convert_qat_model(qdq_model(tmp_path), tmp_path / "m")
    assert len(report.converted) == 1 and report.residuals == ()
