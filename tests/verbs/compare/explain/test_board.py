"""compare with a board's dumps: equal to the simulation, or wrong from a named layer on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import amct_onnx
from amct_onnx.cli import main
from support.comparison_cases import Case


@pytest.fixture
def dumped(digits: Case, tmp_path: Path) -> Path:
    """What a board would dump: three feeds of eight samples."""
    x = np.load(digits.data)
    name = x.files[0]
    folder = tmp_path / "feeds"
    folder.mkdir()
    for index in range(3):
        np.save(folder / f"{index}.npy", x[name][8 * index : 8 * index + 8])
    out = ["--save_path", str(tmp_path / "board"), "--dump", "layers", "--device", "a2"]
    assert main(["simulate", "--model", str(digits.deploy), "--data", str(folder), *out]) == 0
    return tmp_path / "board"


def _board(case: Case, folder: Path, device: str = "a2") -> amct_onnx.CompareReport:
    return case.compare(folder.parent / "feeds", devices=[device], board=folder)


def test_board_that_computes_as_simulated_differs_nowhere(digits: Case, dumped: Path) -> None:
    found = _board(digits, dumped).board
    assert found is not None and found.feeds == 3 and not found.missing
    assert (found.layer, found.fault) == ("", False)
    assert {t.tensor for t in found.tensors} == {"input", "accumulator", "output", "graph output"}
    assert all(t.difference.exact and t.feeds == 3 for t in found.tensors)
    json.dumps(_board(digits, dumped).to_dict(), allow_nan=False)


def test_board_with_other_weights_is_named_at_the_layer_that_has_them(
    digits: Case, dumped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files of a real device: its own op_type, task and time in the name, raw numbers, float16 results."""
    layer = digits.layers[3]
    op_name = layer.replace("/", "_").replace(".", "_")
    for folder in sorted(dumped.iterdir()):
        if not folder.is_dir():
            continue
        for file in folder.glob(f"*.{op_name}.output.0.npy"):
            wrong = np.load(file)
            wrong[:, 5] += 300
            wrong.tofile(folder / f"Conv2D.{op_name}.12.3.1700000000.output.0.bin")
            file.unlink()
        for file in folder.glob("AscendDequant.*.output.0.npy"):
            np.save(file, np.load(file).astype(np.float16))
    page = dumped.parent / "page.html"
    options = ["--data", str(dumped.parent / "feeds"), "--board", str(dumped), "--report", str(page)]
    assert main([*digits.arguments, *options]) == 1
    printed = capsys.readouterr().out
    assert 'id="board"' in page.read_text(encoding="utf-8")
    assert f"The board goes wrong at layer '{layer}' (accumulator)" in printed and "by up to 300 LSB" in printed
    found = _board(digits, dumped).board
    assert found is not None and found.fault and (found.layer, found.tensor) == (layer, "accumulator")


def test_board_of_another_product_differs_by_its_rounding_alone(digits: Case, dumped: Path) -> None:
    report = _board(digits, dumped, "reference")
    found = report.board
    assert found is not None and not found.fault and found.layer in digits.layers
    assert report.verdict.level != "diverges"


def test_dumps_that_do_not_fit_are_refused(digits: Case, dumped: Path) -> None:
    file = next((dumped / "000001").glob("Conv.*.input.0.npy"))
    for content in (b"none", b""):
        file.write_bytes(content)
        with pytest.raises(amct_onnx.DataError, match="cannot be read"):
            _board(digits, dumped)
    with file.open("wb") as archive:
        np.savez(archive, a=np.zeros(3, np.int8))
    with pytest.raises(amct_onnx.DataError, match="cannot be read"):
        _board(digits, dumped)
    np.save(file, np.zeros(3, np.int8))
    with pytest.raises(amct_onnx.DataError, match="is not the input of shape"):
        _board(digits, dumped)
