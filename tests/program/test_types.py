"""What a user's type checker knows of the public names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import amct_onnx

CODE = """
import amct_onnx as amct

reveal_type(amct.AMCT_SO)
reveal_type(amct.simulate("a", "b").outputs)
amct.convert_qat_model("a", "b", residual_quantizers="drop")
amct.convert_qat_model("a", "b", residual_quantizers="dorp")
amct.compare("a", "b", "c", image=3)
amct.convert_model("a", "b", "c", act_matmul="never")
amct.no_such_thing(1)
"""


@pytest.mark.slow
def test_a_type_checker_sees_types_and_typos(tmp_path: Path) -> None:
    code = tmp_path / "user.py"
    code.write_text(CODE)
    environment = os.environ | {"MYPYPATH": str(Path(amct_onnx.__file__).parents[1])}
    line = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--cache-dir", str(tmp_path / "c")]
    said = subprocess.run([*line, str(code)], env=environment, capture_output=True, text=True).stdout
    here = [text for text in said.splitlines() if "user.py" in text]
    assert 'is "amct_onnx.common.onnxruntime_session.SessionOptions"' in here[0]
    assert "dict[str, numpy.ndarray" in here[1]
    assert 'user.py:7: error: Argument "residual_quantizers"' in here[2] and "[call-arg]" in here[3]
    assert 'user.py:9: error: Argument "act_matmul"' in here[-2] and 'no attribute "no_such_thing"' in here[-1]
    assert "user.py:6" not in said
