"""Evaluators and data in Python that fail, end the program, loop, or give no numbers: one error each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from amct_onnx.cli import main
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.python_feeds import PythonFeeds
from amct_onnx.data.user_code import read_code
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.measure.accuracy import Accuracy
from amct_onnx.verbs.compare.measure.evaluator import Evaluator, read_evaluator
from amct_onnx.verbs.compare.measure.exact_sum import ExactSum
from support.comparison_cases import converted

Y = np.arange(6, dtype=np.float32).reshape(2, 3)
HEAD = "def evaluate(outputs, feeds, labels):\n    "
EVALUATE = {
    "import sys; sys.exit(0)": r"own.py, line 2: evaluate\(\) failed \(SystemExit: 0\)",
    "raise GeneratorExit": r"own.py, line 2: .*\(GeneratorExit\)",
    "raise type('Own', (BaseException,), {})('why')": r"own.py, line 2: .*\(Own: why\)",
    "raise type('Own', (Exception,), {'__str__': lambda self: 1 / 0})()": r"own.py, line 2: .*\(Own\)",
    "raise ValueError('two\\nlines')": r"\(ValueError: two lines\)",
    "return evaluate(outputs, feeds, labels)": "RecursionError",
    "outputs['y'][...] = 0; return {'m': [0, 0]}": "read-only",
    "feeds['x'][...] = 0; return {'m': [0, 0]}": "read-only",
    "labels[...] = 0; return {'m': [0, 0]}": "read-only",
    "return {'m': ['a', 'b']}": "something else than numbers",
    "return {'m': [1j, 1j]}": "something else than numbers",
    "return {'m': type('A', (), {'__array__': lambda *a, **k: exit(5)})()}": r"SystemExit: 5",
    "return {'\\ud800': [0, 0]}": "something else than numbers",
    "return {'m': [0]}": "gave 1 number for 'm' and 2 samples",
    "return {'m': [0, float('nan')]}": "not finite",
    "return {str(i): [0, 0] for i in range(2000)}": "gives 2000 metrics",
    "return None": "returns NoneType",
}


@pytest.mark.parametrize("body", EVALUATE)
def test_evaluate_that_misbehaves(body: str) -> None:
    evaluator = Evaluator(HEAD + body, "own.py")
    y, labels = Y.copy(), np.zeros(2)
    with pytest.raises(DataError, match=EVALUATE[body]) as caught:
        evaluator.evaluate({"y": y}, {"x": y}, labels, 2)
    assert str(caught.value).startswith("own.py") and "\n" not in str(caught.value)
    assert np.array_equal(y, Y) and not labels.any()


@pytest.mark.parametrize("body", ["raise SystemExit", "return None", "return {'m': float('inf')}", "return {'m': 'a'}"])
def test_finish_that_misbehaves(body: str) -> None:
    evaluator = Evaluator(f"{HEAD}return {{}}\ndef finish(sums, samples):\n    {body}", "own.py")
    with pytest.raises(DataError, match=r"own.py.*finish\(\)"):
        evaluator.finish({"m": 1.0}, 2)


@pytest.mark.parametrize(
    "text", ["import sys; sys.exit(1)", "raise GeneratorExit", "def evaluate(:", "x\0y", "evaluate = 3", ""]
)
def test_files_that_cannot_be_run(text: str) -> None:
    Path("own.py").write_text(text)
    with pytest.raises(DataError, match="own.py"):
        read_evaluator("own.py")
    with pytest.raises(DataError, match="own.py"):
        PythonFeeds(Path("own.py"), [])


@pytest.mark.parametrize("kind", ["pipe", "folder", "nothing", "/dev/zero", "binary"])
def test_files_that_are_none(kind: str) -> None:
    """A pipe would block, and a device never end."""
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("binary").write_bytes(b"\xff\xfe\0")
    with pytest.raises(DataError, match=f"{kind}: .*Give a Python file"):
        read_code(kind)


@pytest.mark.parametrize("body", ["raise SystemExit", "raise GeneratorExit", "yield {}; raise StopAsyncIteration"])
def test_feeds_that_misbehave(body: str) -> None:
    Path("own.py").write_text(f"def feeds():\n    {body}\n    yield 1")
    with pytest.raises(DataError, match="own.py, line 2: feeds"):
        for _ in PythonFeeds(Path("own.py"), []):
            pass


def test_feed_whose_array_ends_the_program() -> None:
    Path("own.py").write_text(
        "class A:\n    def __array__(self, *a, **k): raise SystemExit\ndef feeds(): yield {'x': A()}"
    )
    with pytest.raises(DataError, match="own.py: feed 0: input 'x' is not an array"):
        next(iter(PythonFeeds(Path("own.py"), [InputSpec("x", (1,), np.dtype(np.float32))])))


def test_metrics_must_be_the_same_for_all_batches() -> None:
    """A mean over all samples of what some of them lack was too small."""
    one, other = (Accuracy(samples=2, sums={name: ExactSum()}) for name in ("m", "n"))
    with pytest.raises(DataError, match="'m' for some batches only"):
        one.merge(other)


def test_command_names_the_file_and_ctrl_c_ends_a_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first Ctrl-C asks for the end of the batch, which never comes; the second ends it."""
    case = converted("torchfx_mlp3d_i8sym_op13", tmp_path, samples=2)
    own = tmp_path / "own.py"
    own.write_text(HEAD + "raise SystemExit(0)")
    line = [*case.arguments, "--evaluator", str(own)]
    assert main(line) == 2
    assert f"{own}, line 2: evaluate() failed" in capsys.readouterr().err
    own.write_text(f"import os\n{HEAD}for _ in range(2): os.kill(os.getpid(), 2)\n    while True: pass")
    assert main(line) == 130
    assert "interrupted" in capsys.readouterr().err
