"""Data of every kind: values against an independent computation, positions, labels, and what is refused."""

from __future__ import annotations

import os
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

import amct_onnx
from amct_onnx import DataError
from amct_onnx.cli import main
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.input_spec import InputSpec, specs_of
from amct_onnx.data.labels import read_labels
from amct_onnx.data.open_data import open_data
from amct_onnx.data.read_feeds import parse_input_type
from amct_onnx.data.source import Labelled
from amct_onnx.errors import SettingError
from support.golden_models import GOLDENS, MODELS

F32 = np.dtype(np.float32)
RGB = (InputSpec("x", ("n", 3, "h", "w"), F32),)
FIXED = (InputSpec("x", ("n", 3, 8, 8), F32),)
RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (4, 16, 20, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photos(folder: str = "photos") -> Path:
    """a/0.png, a/2.png, b/1.png, b/3.png: lossless, so that the pixels are known."""
    for index, pixels in enumerate(PIXELS):
        path = Path(folder) / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return Path(folder)


ORDER = [0, 2, 1, 3]
"""Of PIXELS, sorted by folder and name."""


def arrays(data: Path | str, inputs: tuple[InputSpec, ...] = RGB, **options: object) -> list[np.ndarray]:
    return [feed[inputs[0].name] for feed in open_data(data, inputs, images=ImageOptions(**options))]  # type: ignore[arg-type]


# -- images ------------------------------------------------------------------------------------------------------------


def test_images_are_pixels_over_255_in_the_models_layout() -> None:
    got = arrays(photos())
    assert all(a.dtype == F32 and a.flags.c_contiguous for a in got)
    for array, index in zip(got, ORDER, strict=True):
        np.testing.assert_array_equal(array[0], (PIXELS[index] / 255.0).astype(np.float32).transpose(2, 0, 1))


def test_mean_std_color_and_layout() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    inputs = (InputSpec("x", (1, "h", "w", 3), F32),)
    got = arrays(photos(), inputs, mean=mean, std=std, color="bgr")
    expected = ((PIXELS[0][:, :, ::-1] / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
    # the one difference: pixels * (1 / 255) instead of / 255, in float64
    np.testing.assert_allclose(got[0][0], expected, rtol=0, atol=2.0**-22)


def test_scale_one_keeps_pixels_and_uint8_is_fed_as_it_is() -> None:
    folder = photos()
    np.testing.assert_array_equal(arrays(folder, scale=1.0)[0][0], PIXELS[0].transpose(2, 0, 1))
    raw = arrays(folder, (InputSpec("x", (1, 16, 20, 3), np.dtype(np.uint8)),))
    np.testing.assert_array_equal(raw[0][0], PIXELS[0])
    with pytest.raises(DataError, match="Leave out"):
        arrays(folder, (InputSpec("x", (1, 16, 20, 3), np.dtype(np.uint8)),), mean=(1.0,))


def test_nearest_resize_and_crop_by_index_arithmetic() -> None:
    """16 x 20 to 8 x 10 takes the pixel at the centre of each 2 x 2 block, rounded down: index 2 i + 1."""
    got = arrays(photos(), FIXED, resize=(8,), crop=(8,), filter="nearest", scale=1.0)[0][0]
    expected = PIXELS[0][1::2, 1::2][:, 1:9]
    np.testing.assert_array_equal(got, expected.transpose(2, 0, 1))


def test_bilinear_halving_is_the_antialiased_triangle() -> None:
    """By 2, Pillow's triangle has half-width 2: weights at distances 1/2 and 3/2, normalised: (1 3 3 1) / 8."""
    pixels = np.repeat(RNG.integers(0, 256, (1, 16, 1), dtype=np.uint8), 16, axis=0).repeat(3, axis=2)
    Path("one").mkdir()
    Image.fromarray(pixels).save("one/0.png")
    got = arrays("one", FIXED, resize=(8, 8), scale=1.0)[0][0, 0, 0]
    row = pixels[0, :, 0].astype(np.float64)
    inner = np.array([(row[2 * i - 1] + 3 * row[2 * i] + 3 * row[2 * i + 1] + row[2 * i + 2]) / 8 for i in range(1, 7)])
    # Pillow computes in fixed point and rounds to whole pixels: half a step, and a margin for its weights
    np.testing.assert_allclose(got[1:7], inner, rtol=0, atol=0.51)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_modes_of_eight_bits(mode: str) -> None:
    Path("one").mkdir()
    suffix = "tif" if mode == "CMYK" else "png"
    Image.fromarray(PIXELS[0]).convert(mode).save(f"one/0.{suffix}")
    with Image.open(f"one/0.{suffix}") as again:
        expected = np.asarray(again.convert("RGB"))
    np.testing.assert_array_equal(arrays("one", scale=1.0)[0][0], expected.transpose(2, 0, 1))


def test_gray_for_one_channel() -> None:
    got = arrays(photos(), (InputSpec("x", ("n", 1, "h", "w"), F32),), scale=1.0)[0][0, 0]
    # ITU-R 601 luma, rounded: Pillow's documentation of "L"
    luma = PIXELS[0] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(got, luma, rtol=0, atol=0.51)


def test_positions_and_fixed_batches() -> None:
    source = open_data(photos(), (InputSpec("x", (2, 3, 16, 20), F32),))
    assert source.count == 2
    feeds = [f["x"] for f in source]
    assert [f.shape for f in feeds] == [(2, 3, 16, 20)] * 2
    for start in range(3):
        again = [(f["x"], y) for f, y in source.labelled(start)]
        assert len(again) == 2 - start
        for (array, labels), expected in zip(again, feeds[start:], strict=True):
            np.testing.assert_array_equal(array, expected)
            assert labels is not None and labels.shape == (2,)
    with pytest.raises(DataError, match="not a multiple of 3"):
        open_data("photos", (InputSpec("x", (3, 3, 16, 20), F32),))


def test_labels_of_images() -> None:
    folder = photos()

    def labels(path: str | None = None) -> list[int]:
        return [int(y[0]) for _, y in open_data(folder, RGB, labels=path).labelled() if y is not None]

    assert labels() == [0, 0, 1, 1]
    for number, name in enumerate("ab"):
        (folder / name).rename(folder / f"{7 + number}")
    assert labels() == [7, 7, 8, 8]
    names = ["7/0.png", "7/2.png", "8/1.png", "8/3.png"]
    Path("l.csv").write_text("file,label\n" + "".join(f"{n},{i}\n" for i, n in reversed(list(enumerate(names)))))
    assert labels("l.csv") == [0, 1, 2, 3]
    Path("l.txt").write_text("".join(f"{Path(n).name} {9 - i}\n" for i, n in enumerate(names)))
    assert labels("l.txt") == [9, 8, 7, 6]
    Path("plain.txt").write_text("4\n3\n2\n1\n")
    assert labels("plain.txt") == [4, 3, 2, 1]
    Path("short.txt").write_text("4\n3\n")
    with pytest.raises(DataError, match="2 labels for the 4 images"):
        labels("short.txt")
    Path("less.csv").write_text("7/0.png,1\n7/2.png,1\n")
    with pytest.raises(DataError, match=r"no label for '8/1.png' \(2 such"):
        labels("less.csv")


def tiff_of_16_bits() -> bytes:
    """One 8 x 8 strip of RGB, little-endian."""
    data = bytes(8 * 8 * 6)
    entries = [
        *((256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, 8 + 2 + 9 * 12 + 4), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, 8 + 2 + 9 * 12 + 10), (277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 1, len(data))),
    ]
    directory = b"".join(struct.pack("<HHII", *e) for e in entries)
    return b"II*\0" + struct.pack("<IH", 8, 9) + directory + bytes(4) + struct.pack("<HHH", 16, 16, 16) + data


def png_that_claims(width: int, height: int) -> bytes:
    return png_of(width, height, 8, 2, b"\0" * 1000)


def png_of(width: int, height: int, bits: int, kind: int, row: bytes) -> bytes:
    """Rows are alike; as many as there are bytes for, or as the height says."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(row * min(height, 1000)))
        + chunk(b"IEND", b"")
    )


def test_image_of_another_size_costs_nothing(tmp_path: Path) -> None:
    """What its header claims is held against the model before anything is decoded."""
    Path("one").mkdir()
    Path("one/0.png").write_bytes(png_of(9000, 9000, 8, 2, b"\0" * (1 + 9000 * 3)))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"\[3, 9000, 9000\], input 'x' takes \[3, 8, 8\]"):
        arrays("one", FIXED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_memory_of_an_image_is_that_of_its_pixels_and_feed() -> None:
    """No float64 of all pixels, which would take twice the feed: one feed, and one channel of it on the way."""
    Path("one").mkdir()
    Image.fromarray(np.zeros((1000, 1000, 3), np.uint8)).save("one/0.png")
    tracemalloc.start()
    (feed,) = arrays("one")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * feed.nbytes


def test_opaque_transparency_is_dropped() -> None:
    """Nothing is lost: all pixels of the file are seen."""
    Path("one").mkdir()
    Image.fromarray(np.dstack([PIXELS[0], np.full((16, 20), 255, np.uint8)])).save("one/0.png")
    np.testing.assert_array_equal(arrays("one", scale=1.0)[0][0], PIXELS[0].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("truncated", "cannot be decoded"),
        ("bomb", "claims 12000 x 12000 pixels"),
        ("larger bomb", "cannot be decoded .*bomb"),
        ("text", "cannot be decoded"),
        ("empty", "cannot be decoded"),
        ("16 bits", "not of 8 bits"),
        ("16 bits of color", "not of 8 bits"),
        ("transparent", "transparent pixels"),
        ("transparent palette", "transparent pixels"),
        ("pgm of 16 bits", "not of 8 bits"),
        ("tiff of 16 bits", "not of 8 bits"),
        ("other size", "takes"),
        ("small", "fewer than the crop"),
    ],
)
def test_images_that_cannot_be_used(content: str, message: str) -> None:
    folder = photos()
    path = folder / "a" / "0.png"
    options: dict[str, object] = {}
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:400])
        options = {"resize": (8, 8)}
    elif content.endswith("bomb"):
        path.write_bytes(png_that_claims(*[60000 if "larger" in content else 12000] * 2))
    elif content == "text":
        path.write_text("no image")
    elif content == "empty":
        path.write_bytes(b"")
    elif content == "16 bits":
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(path)
    elif content == "16 bits of color":
        path.write_bytes(png_of(8, 8, 16, 2, b"\0" + bytes(range(48))))
    elif content == "pgm of 16 bits":
        path.write_bytes(b"P6\n8 8\n65535\n" + bytes(8 * 8 * 6))
    elif content == "tiff of 16 bits":
        path.write_bytes(tiff_of_16_bits())
    elif content == "transparent":
        Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(path)
    elif content == "transparent palette":
        Image.new("P", (8, 8), 0).save(path, transparency=0)
    elif content == "small":
        options = {"crop": (17,)}
    with pytest.raises(DataError, match=message) as caught:
        arrays(folder, FIXED, **options)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((InputSpec("x", ("n", 10), F32),), "Give images to one input with four axes"),
        ((*RGB, InputSpec("y", (1,), F32)), "Give images to one input with four axes"),
        ((InputSpec("x", ("n", 3, 8, 8), np.dtype(np.int64)),), "float or uint8"),
        ((InputSpec("x", ("n", 4, 8, 8), F32),), "on no axis"),
    ],
)
def test_models_that_take_no_images(inputs: tuple[InputSpec, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        arrays(photos(), inputs)


@pytest.mark.parametrize(
    "wrong",
    [{"layout": "CHW"}, {"color": "lab"}, {"filter": ""}, {"resize": (0,)}, {"crop": (1, 2, 3)}, {"mean": (1.0, 2.0)}]
    + [{"std": (0.0,)}],
)
def test_options_that_mean_nothing(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=rf"^ImageOptions\.{next(iter(wrong))}"):
        ImageOptions(**wrong)  # type: ignore[arg-type]


# -- a Python file -----------------------------------------------------------------------------------------------------

GOOD = """
import numpy as np
def feeds():
    for i in range(3):
        yield {"x": np.full((2, 3), i, np.float32)}, np.array([i, i + 1])
"""
TABLE = (InputSpec("x", ("n", 3), F32),)


def from_python(text: str) -> list[tuple[np.ndarray, np.ndarray | None]]:
    Path("feeds.py").write_text(text)
    return [(f["x"], y) for f, y in open_data("feeds.py", TABLE).labelled()]


def test_python_file_with_labels_is_iterated_again_from_any_position() -> None:
    Path("feeds.py").write_text(GOOD)
    source = open_data("feeds.py", TABLE)
    assert source.count is None
    for start in (0, 2, 0, 3):
        got = list(source.labelled(start))
        assert [float(f["x"][0, 0]) for f, _ in got] == list(range(start, 3))
        assert [y.tolist() for _, y in got if y is not None] == [[i, i + 1] for i in range(start, 3)]


BODY = "import numpy as np\nX = np.zeros((2, 3), np.float32)\ndef feeds():\n    "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def feeds(:", "SyntaxError"),
        ("1 / 0", "line 1: cannot be run .ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("x = 1", "defines no function feeds"),
        ("feeds = 3", "defines no function feeds"),
        (BODY + "return 3", "returns a int"),
        (BODY + "return []", "yields nothing"),
        (BODY + "yield X", "feed 0 is a ndarray"),
        (BODY + "yield {'z': X}", "'z', which is not an input"),
        (BODY + "yield {}", "holds no 'x'"),
        (BODY + "yield {'x': X.astype(np.float64)}", "is float64, the model takes float32"),
        (BODY + "yield {'x': X.T}", r"has shape \[3, 2\]"),
        (BODY + "yield {'x': [object()]}", "not an array of numbers"),
        (BODY + "yield {'x': [[1], [1, 2]]}", "is not an array"),
        (BODY + "yield {'x': X}, [1]", "2 samples and labels of shape"),
        (BODY + "yield {'x': X}\n    raise ValueError('lost')", "line 5: .*fails at feed 1 .ValueError: lost"),
    ],
)
def test_python_files_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        from_python(text)
    assert str(caught.value).startswith("feeds.py")


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_raw_numbers_of_a_narrower_type() -> None:
    numbers = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    numbers.tofile("d.bin")
    (feed,) = open_data("d.bin", TABLE, input_shape="x:4,3", input_type="x:uint8")
    np.testing.assert_array_equal(feed["x"], numbers.astype(np.float32))
    with pytest.raises(DataError, match="does not hold every int32"):
        list(open_data("d.bin", TABLE, input_shape="x:4,3", input_type="x:int32"))
    for text in ("uint8", "x:byte", ":uint8"):
        with pytest.raises(DataError, match="input_type"):
            parse_input_type(text)
    with pytest.raises(DataError, match="no input 'z'"):
        list(open_data("d.bin", TABLE, input_shape="x:4,3", input_type="z:uint8"))


def test_labels_beside_arrays_are_cut_as_the_feeds_are() -> None:
    np.save("d.npy", np.zeros((6, 3), np.float32))
    np.save("l.npy", np.arange(6))
    source = open_data("d.npy", (InputSpec("x", (2, 3), F32),), labels="l.npy")
    assert [y.tolist() for _, y in source.labelled(1) if y is not None] == [[2, 3], [4, 5]]
    for count in (5, 7):
        np.save("l.npy", np.arange(count))
        with pytest.raises(DataError, match=f"holds {count} labels"):
            list(open_data("d.npy", (InputSpec("x", (2, 3), F32),), labels="l.npy").labelled())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"\xff\xfe\x00", "cannot be read as text"),
        ("l.txt", b"", "holds no labels"),
        ("l.txt", b"cat\ndog\n", "is not a label"),
        ("l.csv", b"a,1,2\n", "is not a label"),
        ("l.csv", b"a.png,1\n", "names files"),
        ("l.txt", b"9" * 5000, "is not a label"),
        ("l.csv", b"a.png,1\nb.png," + b"9" * 30, "is not a label"),
        ("l.csv", b"a,1\n" + b"x" * 200_000 + b",2\n", "cannot be read as text"),
        ("l.npy", b"nothing", "cannot be read as labels"),
        ("none.npy", None, "no such file"),
    ],
)
def test_labels_that_cannot_be_used(name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_labels(name)


def test_archives_and_bytes_are_no_arrays() -> None:
    """Found by fuzzing: numpy opens an archive under any suffix, and hands out members that are not arrays as bytes."""
    with zipfile.ZipFile("bytes.npz", "w") as archive:
        archive.writestr("x", b"not an array")
    shutil.copy("bytes.npz", "archive.npy")
    for name in ("bytes.npz", "archive.npy"):
        with pytest.raises(DataError, match=f"{name}: cannot be read as an array .*not an array"):
            list(open_data(name, (InputSpec("x", (2, 3), F32),)).labelled())
    with pytest.raises(DataError, match="bytes.npz: cannot be read as labels"):
        read_labels("bytes.npz")


def test_pickled_labels_are_never_read() -> None:
    np.save("l.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as labels"):
        read_labels("l.npy")
    np.savez("l.npz", a=np.arange(2), b=np.arange(2))
    with pytest.raises(DataError, match="Name the labels"):
        read_labels("l.npz")


# -- the commands ------------------------------------------------------------------------------------------------------


def test_simulate_takes_images_and_python_files(tmp_path: Path) -> None:
    model = str(GOLDENS / "qat" / "net" / "m_deploy_model.onnx")  # x: 1, 3, 16, 16
    folder = str(photos())
    images = ["--image_crop", "16", "--image_mean", "0.4,0.5,0.6", "--image_std=0.2"]
    assert main(["simulate", "--model", model, "--data", folder, "--save_path", "one", *images]) == 0
    crop = PIXELS[ORDER][:, :, 2:18].transpose(0, 3, 1, 2) / 255
    x = ((crop - np.array([0.4, 0.5, 0.6]).reshape(3, 1, 1)) / 0.2).astype(np.float32)
    np.save("x.npy", x)
    Path("feeds.py").write_text(
        "import numpy as np\ndef feeds():\n    for x in np.load('x.npy'): yield {'x': x[None]}\n"
    )
    assert main(["simulate", "--model", model, "--data", "feeds.py", "--save_path", "two"]) == 0
    files = sorted(p.relative_to("two") for p in Path("two").rglob("*.npy"))
    assert len(files) == 4
    for file in files:
        # an input one rounding away falls on another integer only at a tie, which these do not
        np.testing.assert_allclose(np.load("one" / file), np.load("two" / file), rtol=0, atol=0)


def test_pipe_among_the_files_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.npz")
    with pytest.raises(DataError, match=r"0\.npz: is a pipe or device"):
        list(open_data(tmp_path, TABLE))


def test_public_names_open_data_for_a_session_and_a_source_of_ones_own() -> None:
    class Noise(amct_onnx.DataSource):
        def labelled(self, start: int = 0) -> Iterator[Labelled]:
            yield from [({"x": np.zeros(1, np.float32)}, None)] * (3 - start)

    assert len(list(Noise())) == 3 and len(list(Noise().labelled(2))) == 1
    model = MODELS / "torchfx_digitsnet_i8sym_op13"
    session = ort.InferenceSession(str(model / "model.onnx"), amct_onnx.AMCT_SO)
    source = amct_onnx.open_data(model / "inputs.npz", session)
    assert isinstance(source, amct_onnx.DataSource)
    direct = open_data(model / "inputs.npz", specs_of(session))
    for ours, theirs in zip(source, direct, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("data", [None, object(), [[np.zeros(2), np.zeros(3)]]])
def test_what_is_no_data(data: Any) -> None:
    """It was called an array of objects to be converted."""
    with pytest.raises(DataError, match="Give a path, an array, a dict"):
        list(open_data(data, FIXED))
