"""The factor record's form, and whose record a file is."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.emit.record import is_own_record
from amct_onnx.errors import OutputError
from support.golden_models import MODELS
from support.small_models import qdq_model

PPQ_FORM = """record {
  key: "conv"
  value {
    scale_d: 0.0625
    offset_d: 3
    scale_w: 0.5
    offset_w: 0
  }
}
"""


@pytest.mark.parametrize("text", [PPQ_FORM, "my notes\n", "record {\n", PPQ_FORM.replace("0.0625", "6.25e-02")])
def test_record_of_another_tool_is_kept(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The call and the command refuse, say what to do, and write nothing."""
    source, record = qdq_model(tmp_path), tmp_path / "record.txt"
    record.write_text(text)
    with pytest.raises(
        OutputError, match="record.txt: exists and was not written by a conversion.*Give record_file another path"
    ):
        amct_onnx.convert_qat_model(source, tmp_path / "out" / "m", record)
    assert main(["convert", "--model", str(source), "--save_path", str(tmp_path / "m"), "--record_file", str(record)])
    assert "--record_file another path" in " ".join(capsys.readouterr().err.split())
    assert record.read_text() == text
    assert [p.name for p in tmp_path.rglob("*.onnx")] == [source.name]


@settings(max_examples=20, deadline=None)  # a conversion on a busy machine
@given(name=st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable() or "\n" in t or '"' in t))
def test_own_record_is_replaced(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a layer is called: what one conversion wrote, the next replaces."""
    folder = tmp_path_factory.mktemp("own")
    source, record = qdq_model(folder), folder / "record.txt"
    model = onnx.load(source)
    for node in model.graph.node:
        node.name = f"{name}{node.name}"
    onnx.save(model, source)
    amct_onnx.convert_qat_model(source, folder / "m", record)
    first = record.read_bytes()
    amct_onnx.convert_qat_model(source, folder / "m", record)
    assert record.read_bytes() == first and is_own_record(first.decode())


def test_exporters_record_is_own(tmp_path: Path) -> None:
    """Real models' records, and that of a model with no int8 layer, keep the form."""
    for index, source in enumerate(sorted(MODELS.glob("*/model.onnx"))[:6]):
        amct_onnx.convert_qat_model(source, tmp_path / str(index), tmp_path / "record.txt")
        assert is_own_record((tmp_path / "record.txt").read_text()), source.name
