"""The data set as ais_bench takes it: a folder for each input, as the model takes it or, with AIPP, as uint8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amct_onnx import DataError, OutputError
from amct_onnx.cli import main
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.open_data import open_data
from amct_onnx.verbs.simulate.export_inputs import export_inputs, input_folders
from support.converted_cases import feeds_of
from support.fault_injection import fail_at, faults, whole_tree
from support.golden_models import GOLDENS

NET = GOLDENS / "qat" / "net" / "m_deploy_model.onnx"
F32 = np.dtype(np.float32)
TWO = (InputSpec("a/x", ("n", 3), F32), InputSpec("b", ("n",), np.dtype(np.int64)))


def test_exported_data_are_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    x = feeds_of("qat/net")["x"]
    np.save("d.npy", x)
    line = ["simulate", "--model", str(NET), "--data"]
    assert main([*line, "d.npy", "--save_path", "out", "--export_inputs", "in"]) == 0
    assert f"ais_bench --input {Path('in/x').resolve()}" in capsys.readouterr().out.replace("\n", "")
    assert [f.name for f in Path("in/x").iterdir()] == ["000000.bin"]
    assert np.array_equal(np.fromfile("in/x/000000.bin", np.float32), x.ravel())
    shape = f"x:{','.join(map(str, x.shape))}"
    assert main([*line, "in", "--input_shape", shape, "--save_path", "again"]) == 0
    assert main([*line, "d.npy", "--save_path", "out2", "--export_inputs", "in"]) == 2
    assert "is there already" in capsys.readouterr().err and not Path("out2").exists()


def test_each_input_has_a_folder() -> None:
    feeds = [{"a/x": np.full((1, 3), n, np.float32), "b": np.array([n])} for n in range(2)]
    folders = export_inputs(open_data(feeds, TWO), ["a/x", "b"], "in")
    assert [Path(f).name for f in folders] == ["a_x", "b"]
    again = list(open_data("in", TWO, input_shape="a/x:1,3;b:1"))
    assert [f["b"].tolist() for f in again] == [[0], [1]] and again[1]["a/x"].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("names", [["..", "b"], ["a,b"], ["a/b", "a_b"], ["", "x"], ["x" * 300]])
def test_names_that_no_command_line_takes_are_numbers(names: list[str]) -> None:
    assert input_folders(names) == tuple(f"input_{i}" for i in range(len(names)))


def test_images_are_exported_prepared_or_as_aipp_takes_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Path("photos").mkdir()
    Image.fromarray(pixels).save("photos/a.png")
    model = (InputSpec("x", (1, 3, 4, 6), F32),)
    export_inputs(open_data("photos", model, images=ImageOptions(mean=(0.5,))), ["x"], "prepared")
    floats = (pixels.transpose(2, 0, 1) * (1 / 255) - 0.5).astype(np.float32)
    assert np.array_equal(np.fromfile("prepared/x/000000.bin", np.float32), floats.ravel())
    Path("aipp.cfg").write_text("aipp_op { aipp_mode: static input_format: RGB888_U8 }", encoding="utf-8")
    export_inputs(open_data("photos", model, aipp="aipp.cfg"), ["x"], "fed")
    assert Path("fed/x/000000.bin").read_bytes() == pixels.tobytes()


def test_failure_leaves_nothing() -> None:
    source = open_data(np.zeros((2, 3), np.float32), (TWO[0],))
    export_inputs(source, ["a/x"], "whole/in")
    whole = whole_tree(Path("whole"))
    with faults(lambda count: None) as made:
        export_inputs(source, ["a/x"], "counted/in")
    failed = 0
    for number in range(1, len(made) + 1, 4):
        folder = Path(str(number))
        folder.mkdir()
        try:
            with faults(fail_at(number)):
                export_inputs(source, ["a/x"], folder / "in")
        except OutputError:
            assert list(folder.iterdir()) == []
            failed += 1
        else:  # the call only tidied up
            assert (folder / "in/a_x/000000.bin").read_bytes() == bytes(24)
    assert failed > len(made) // 8
    assert whole_tree(Path("whole")) == whole


def test_data_that_break_off_leave_nothing() -> None:
    Path("feeds.py").write_text(
        "import numpy as np\ndef feeds():\n    yield {'a/x': np.zeros((1, 3), np.float32)}\n    raise ValueError\n"
    )
    with pytest.raises(DataError, match="fails at feed 1"):
        export_inputs(open_data("feeds.py", TWO[:1]), ["a/x"], "in")
    assert not Path("in").exists()
    Path("file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        export_inputs(open_data(np.zeros((1, 3), np.float32), TWO[:1]), ["a/x"], "file/in")
