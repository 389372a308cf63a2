"""Tags and lengths of a model, wherever the window over its file ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from amct_onnx.common.wire_format import field_start, varint
from amct_onnx.errors import ModelFileError
from amct_onnx.files import proto_scan
from amct_onnx.files.file_tensor import SourceFile
from amct_onnx.files.proto_scan import MAX_VARINT, graph_without_large_tensors


def small_model(path: Path) -> Path:
    """Fields of every wire type that a model has, lengths of one and of two bytes."""
    value = [helper.make_tensor_value_info(n, 1, [200, 1000]) for n in "xy"]
    nodes = [
        helper.make_node("Add", ["x", "w" * 150], ["h"], "n" * 130),
        helper.make_node("Elu", ["h"], ["y"], "e", alpha=0.5),
    ]
    weight = numpy_helper.from_array(np.arange(40, dtype=np.float32).reshape(1, 40), "w" * 150)
    model = helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:], [weight]), producer_name="p" * 140)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("cut", [4, 1 << 16], ids=["each message is entered", "each message is copied"])
def test_window_may_end_at_any_byte(cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proto_scan, "CUT_BYTES", cut)
    source = SourceFile(small_model(tmp_path / "m.onnx"))
    expected = graph_without_large_tensors(source)
    assert (expected == (tmp_path / "m.onnx").read_bytes()) == (cut > source.size)
    for window in range(MAX_VARINT, source.size + 1):
        monkeypatch.setattr(proto_scan, "WINDOW", window)
        assert graph_without_large_tensors(source) == expected, window


TAILS = {
    "tag": b"\x80",
    "no length": field_start(1, 1)[:1],
    "length": field_start(1, 1)[:1] + b"\x80",
    "no number": varint(1 << 3),
    "number": varint(1 << 3) + b"\xff\xff",
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("before", [0, 1, 20])
def test_number_that_the_file_cuts_is_an_error(
    before: int, tail: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proto_scan, "WINDOW", MAX_VARINT)
    (tmp_path / "m.onnx").write_bytes(field_start(2, before) + b"p" * before + tail)
    with pytest.raises(ModelFileError, match="truncated"):
        graph_without_large_tensors(SourceFile(tmp_path / "m.onnx"))


def test_number_of_more_than_ten_bytes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(varint(1 << 3) + b"\xff" * 11)
    with pytest.raises(ModelFileError, match="more than ten"):
        graph_without_large_tensors(SourceFile(tmp_path / "m.onnx"))
