"""Data behind AIPP: every kind of data is opened as a board is fed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amct_onnx import DataError, ImageOptions
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.open_data import open_data

F32 = np.dtype(np.float32)
MODEL = (InputSpec("x", ("n", 3, 4, 6), F32),)
PIXELS = np.random.default_rng(1).integers(0, 256, (3, 4, 6, 3), np.uint8)


def config(kind: str = "RGB888_U8", *lines: str, name: str = "aipp.cfg") -> str:
    text = "\n".join([f"aipp_op {{ aipp_mode: static input_format: {kind}", *lines, "}"])
    Path(name).write_text(text, encoding="utf-8")
    return name


def opened(data: Any, file: str, inputs: tuple[InputSpec, ...] = MODEL, **options: Any) -> list[Any]:
    return [feed["x"] for feed in open_data(data, inputs, aipp=file, **options)]


def test_every_kind_of_data_gives_the_same() -> None:
    file = config("RGB888_U8", "var_reci_chn_0: 0.5", "mean_chn_2: 3")
    np.save("d.npy", PIXELS)
    PIXELS.tofile("d.bin")
    Path("feeds.py").write_text("import numpy as np\ndef feeds():\n    yield {'x': np.load('d.npy')}\n")
    Path("photos").mkdir()
    for index, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(f"photos/{index}.png")
    expected = PIXELS.transpose(0, 3, 1, 2).astype(np.float32)
    expected[:, 0] *= 0.5
    expected[:, 2] -= 3
    for data in ("d.npy", "feeds.py", PIXELS):
        (found,) = opened(data, file)
        assert found.dtype == np.float32 and np.array_equal(found, expected)
    assert np.array_equal(np.concatenate(opened("d.bin", file, input_shape="x:1,3,4,6")), expected)
    assert np.array_equal(np.concatenate(opened("photos", file)), expected)


@pytest.mark.parametrize("first", [True, False])
def test_images_become_the_bytes_of_the_format(first: bool) -> None:
    Path("photos").mkdir()
    Image.fromarray(PIXELS[0]).save("photos/0.png")
    source = open_data("photos", MODEL, aipp=config("XRGB8888_U8", f"ax_swap_switch: {str(first).lower()}"))
    (fed,) = source.fed
    expected = np.zeros((1, 4, 6, 4), np.uint8)
    expected[..., slice(1, 4) if first else slice(3)] = PIXELS[:1]
    assert np.array_equal(fed["x"], expected)
    (feed,) = source
    assert np.array_equal(feed["x"], PIXELS[:1].transpose(0, 3, 1, 2).astype(np.float32))


def test_grey_images_and_labels() -> None:
    Path("photos").mkdir()
    for name in ("0", "1"):
        Path("photos", name).mkdir()
        Image.fromarray(PIXELS[0, :, :, 0]).save(f"photos/{name}/a.png")
    source = open_data("photos", (InputSpec("x", ("n", 1, 4, 6), F32),), aipp=config("YUV400_U8"))
    found = list(source.labelled(1))
    assert [labels.tolist() for _, labels in found if labels is not None] == [[1]]
    assert np.array_equal(found[0][0]["x"][0, 0], PIXELS[0, :, :, 0].astype(np.float32))
    assert source.count == 2 and [f["x"].shape for f in source.fed] == [(1, 4, 6)] * 2


def test_only_the_named_input_is_an_image() -> None:
    two = (InputSpec("a", (1, 2), F32), InputSpec("x", (1, 3, 4, 6), F32))
    a = np.ones((1, 2), np.float32)
    file = config("RGB888_U8", "related_input_rank: 1", "rbuv_swap_switch: true")
    (feed,) = open_data({"a": a, "x": PIXELS[:1]}, two, aipp=file)
    assert np.array_equal(feed["a"], a)
    assert np.array_equal(feed["x"], PIXELS[:1, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32))


def test_data_that_a_board_is_not_fed_are_refused() -> None:
    file = config()
    with pytest.raises(DataError, match="float32"):
        opened(PIXELS.astype(np.float32), file)
    with pytest.raises(DataError, match="shape"):
        opened(PIXELS.transpose(0, 3, 1, 2), file)
    Path("photos").mkdir()
    Image.fromarray(PIXELS[0]).save("photos/0.png")
    with pytest.raises(DataError, match=r"ImageOptions\.scale"):
        opened("photos", file, images=ImageOptions(mean=(0.5,)))
    with pytest.raises(DataError, match="video decoder"):
        opened("photos", config("YUV420SP_U8", name="video.cfg"))
    with pytest.raises(DataError, match="NHWC"):
        opened("photos", file, images=ImageOptions(layout="NCHW"))


@pytest.mark.parametrize(
    ("inputs", "lines", "words"),
    [
        ((InputSpec("x", ("n", 3), F32),), (), "input 'x' takes"),
        ((InputSpec("x", ("n", 3, 4, 6), np.dtype(np.int64)),), (), "input 'x' takes int64"),
        (MODEL, ("related_input_rank: 1",), "no input 1"),
        ((InputSpec("x", ("n", 3, "h", "w"), F32),), (), "tells the size"),
        (MODEL, ("crop: true",), "size of the source"),
    ],
)
def test_configuration_that_does_not_fit_the_model_is_refused(
    inputs: tuple[InputSpec, ...], lines: tuple[str, ...], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        opened(PIXELS, config("RGB888_U8", *lines), inputs)
