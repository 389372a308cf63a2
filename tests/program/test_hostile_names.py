"""Names that command terminals, run scripts or fill the screen reach neither terminal, log nor page as they are."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.common.log import start_log
from amct_onnx.common.plain_text import MAX_SHOWN, escaped, shown
from amct_onnx.verbs.simulate.simulate import Simulation, simulate
from support.small_models import qdq_model

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202efdp\u2028\x00</script><script>alert(1)</script>\"'[/red][bold]\n0 errors"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
SECONDS = 20.0
"""For a command on a name of a megabyte, which takes some; a layout that is quadratic in it takes minutes."""


def hostile_model(folder: Path, name: str) -> Path:
    """Layer, tensors and the weight's quantizer have the name; the graph's input and output do not."""
    path = qdq_model(folder)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = f"{name}{node.name}"
        for ends in (node.input, node.output):
            ends[:] = [n if n in ("x", "y") else f"{name}{n}" for n in ends]
    for tensor in model.graph.initializer:
        tensor.name = f"{name}{tensor.name}"
    onnx.save(model, path)
    return path


def test_texts_are_escaped_and_cut() -> None:
    assert shown("a\x1b[0mb\n  c\u202e ü 例") == "a\\u001b[0mb c\\u202e ü 例"
    cut = shown("x" * 10**6 + "end")
    assert len(cut) < MAX_SHOWN + 50 and cut.endswith("xend") and "998,003 characters left out" in cut
    content = {"a": HOSTILE, "b": "\x7f\x9b"}
    assert json.loads(escaped(json.dumps(content, ensure_ascii=False))) == content


def test_log_lines() -> None:
    """A name can neither forge a line nor command the terminal that shows the log."""
    start_log()
    own = (logging.StreamHandler, logging.FileHandler)
    handlers = [h for h in logging.getLogger("amct_onnx").handlers if type(h) in own]
    record = logging.LogRecord("amct_onnx", logging.WARNING, "", 1, "Layer %s stays float", (HOSTILE,), None)
    for line in (handler.format(record) for handler in handlers):
        assert "WARNING - Layer \\u001b]0;owned" in line and not UNSAFE.search(line) and "\n" not in line
    assert handlers


@pytest.mark.parametrize(
    "name",
    [HOSTILE, "n" * 10**5, pytest.param("n" * 10**6, marks=pytest.mark.slow)],
    ids=["hostile", "long", "megabyte"],
)
def test_commands(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = hostile_model(tmp_path, name)
    np.save("x.npy", np.ones((2, 3), np.float32))
    deploy = "m_deploy_model.onnx"
    lines = [
        ["convert", "--model", model, "--save_path", "m"],
        ["bias", "--model", model, "--output", "b.onnx"],
        ["check", "--model", deploy],
        ["simulate", "--model", deploy, "--data", "x.npy", "--save_path", "out", "--dump", "layers"],
        ["compare", "--model", model, "--save_path", "m", "--data", "x.npy", "--report", "r.html"],
        ["atc", "--model", deploy, "--soc_version", "Ascend310P3", "--input_shape", "x:1,3"],
    ]
    for line in lines:
        started = time.process_time()
        assert main([str(word) for word in line]) in (0, 1), line
        printed = capsys.readouterr()
        for text in (printed.out, printed.err):
            assert not UNSAFE.search(text) and len(text) < 30_000, line
            assert not any(row.strip() == "0 errors" for row in text.splitlines())
        assert time.process_time() - started < SECONDS
        if name == HOSTILE and line[0] not in ("atc", "compare"):
            assert main([str(word) for word in [*line, "--json"]]) in (0, 1)
            text = capsys.readouterr().out
            assert not UNSAFE.search(text)
            assert line[0] == "check" or f"{name}gemm" in [layer["name"] for layer in json.loads(text)["layers"]]
    page = Path("r.html").read_text(encoding="utf-8")
    assert not UNSAFE.search(page) and "<script>alert" not in page and len(page) < 300_000


@pytest.mark.parametrize("name", [HOSTILE, "n" * 10**6], ids=["hostile", "long"])
def test_errors(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(hostile_model(tmp_path, name))
    model.graph.node[-1].input[0] = f"{name}nobody"
    onnx.save(model, tmp_path / "source.onnx")
    assert main(["convert", "--model", str(tmp_path / "source.onnx"), "--save_path", "m"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not UNSAFE.search(error) and len(error) < MAX_SHOWN + 100


def test_atc_refuses_an_input_that_no_command_line_can_hold(tmp_path: Path) -> None:
    model = onnx.load(qdq_model(tmp_path))
    model.graph.input[0].name = model.graph.node[0].input[0] = "\x1b[2J"
    onnx.save(model, "source.onnx")
    report = amct_onnx.convert_qat_model("source.onnx", "m")
    from amct_onnx.verbs.atc.command_line import atc_command

    with pytest.raises(amct_onnx.UnsupportedModelError, match=r"Input '\\u001b\[2J'"):
        atc_command(report.deploy_model, "Ascend310P3")


class Terminal(io.StringIO):
    """What rich takes for one."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_tables_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are ours; nothing else is commanded."""
    monkeypatch.setenv("TERM", "xterm-256color")
    source = hostile_model(tmp_path, HOSTILE)
    np.save("x.npy", np.ones((2, 3), np.float32))
    (tmp_path / "own.py").write_text(f"def evaluate(o, f, l):\n    return {{{HOSTILE!r}: [0.5] * 2}}\n")
    report = amct_onnx.convert_qat_model(source, "m")
    simulation: Simulation = simulate(report.deploy_model, "x.npy", "out")
    compared = amct_onnx.compare(source, "m", "x.npy", evaluator=tmp_path / "own.py")
    checked, biases = amct_onnx.check(report.deploy_model), amct_onnx.quantize_bias(source, "b.onnx")
    for number, shown_report in enumerate((report, checked, simulation, biases, compared)):
        terminal = Terminal()
        Console(file=terminal, force_terminal=True).print(shown_report)
        text = terminal.getvalue()
        assert number == 1 or COLOUR.search(text), number
        assert not UNSAFE.search(COLOUR.sub("", text)), number
