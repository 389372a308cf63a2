"""AIPP's arithmetic: against a pixel-by-pixel reading of ATC's documentation, and on published configurations."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_onnx import DataError
from amct_onnx.common.arrays import Array
from amct_onnx.data.aipp import apply_aipp, fed_shape
from amct_onnx.data.aipp_config import FORMATS, YUV400, YUV420SP, AippConfig, Crop, Csc, Padding, aipp_text, read_aipp

F32, F16, U8 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.uint8)
JPEG = ((256, 0, 359), (256, -88, -183), (256, 454, 0))
"""YUV420SP_U8 to RGB of JPEG images, from ATC's documentation."""


def half(x: float) -> float:
    """Rounded to float16 by Python itself."""
    return float(struct.unpack("<e", struct.pack("<e", x))[0])


def pixel_of(image: Array, config: AippConfig, y: int, x: int) -> list[int]:
    """The channels of one pixel, by the definition of each format."""
    if config.input_format == YUV400:
        return [int(image[y, x])]
    if config.input_format == YUV420SP:
        height = image.shape[0] * 2 // 3
        pair = [int(image[height + y // 2, x - x % 2 + c]) for c in (0, 1)]
        return [int(image[y, x]), *(pair[::-1] if config.swap_rb else pair)]
    bytes_ = [int(b) for b in image[y, x]]
    if len(bytes_) == 4 and config.swap_ax:
        bytes_ = [*bytes_[1:], bytes_[0]]
    return bytes_[2::-1] if config.swap_rb else bytes_[:3]


def one_by_one(image: Array, config: AippConfig, kind: np.dtype[np.generic]) -> list[list[list[float]]]:
    """[C][H][W] of one image, in plain Python."""
    crop = config.crop or Crop(0, 0, config.height, config.width)
    pad = config.padding or Padding(0, 0, 0, 0, 0.0)

    def value(channel: int, y: int, x: int) -> float:
        inside = pad.top <= y < pad.top + crop.height and pad.left <= x < pad.left + crop.width
        if not inside:
            return min(255, max(0, int(pad.value))) if kind == U8 else half(pad.value)
        pixel = pixel_of(image, config, crop.top + y - pad.top, crop.left + x - pad.left)
        p = pixel[channel]
        if config.csc is not None:
            c = config.csc
            total = sum(m * (v - b) for m, v, b in zip(c.matrix[channel], pixel, c.input_bias, strict=True))
            p = min(255, max(0, total // 256 + c.output_bias[channel]))
        if kind == U8:
            return p
        return half(half(p - config.mean[channel] - half(config.low[channel])) * half(config.factor[channel]))

    channels = 1 if config.input_format == YUV400 else 3
    rows, columns = pad.top + crop.height + pad.bottom, pad.left + crop.width + pad.right
    return [[[value(c, y, x) for x in range(columns)] for y in range(rows)] for c in range(channels)]


small = st.integers(0, 3)
quarters = st.integers(-400, 400).map(lambda n: n / 4)


@st.composite
def configs(draw: st.DrawFn) -> AippConfig:
    kind = draw(st.sampled_from(FORMATS))
    height, width = 2 * draw(st.integers(1, 4)), 2 * draw(st.integers(1, 4))
    top, left = 2 * draw(st.integers(0, height // 2 - 1)), 2 * draw(st.integers(0, width // 2 - 1))
    crop = Crop(top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left)))
    padding = Padding(*draw(st.tuples(small, small, small, small)), value=draw(quarters))
    matrix = draw(st.tuples(*[st.tuples(*[st.integers(-600, 600)] * 3)] * 3))
    bias = draw(st.tuples(*[st.integers(0, 255)] * 3))
    csc = Csc(matrix, bias, (0, 0, 0)) if kind == YUV420SP else Csc(matrix, (0, 0, 0), bias)
    factor = st.floats(-4, 4, width=32)
    return AippConfig(
        kind,
        draw(st.integers(0, 2)),
        height,
        width,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.none() | st.just(crop)),
        draw(st.none() | st.just(padding)),
        draw(st.none() | st.just(csc)) if kind != YUV400 else None,
        draw(st.tuples(*[st.integers(0, 255)] * 4)),
        draw(st.tuples(*[st.integers(0, 1020).map(lambda n: n / 4)] * 4)),
        draw(st.tuples(*[factor] * 4)),
    )


@settings(max_examples=60, deadline=None)
@given(configs(), st.integers(0, 2**32 - 1), st.sampled_from([F32, F16, U8]))
def test_equals_the_documentation_pixel_by_pixel(config: AippConfig, seed: int, kind: np.dtype[np.generic]) -> None:
    shape = fed_shape(config, config.height, config.width)
    images = np.random.default_rng(seed).integers(0, 256, (2, *shape), np.uint8)
    found = apply_aipp(images, config, (None, None, None), kind)
    assert found.dtype == kind
    for image, values in zip(images, found, strict=True):
        assert values.astype(np.float64).tolist() == one_by_one(image, config, kind)


@settings(max_examples=60, deadline=None)
@given(configs())
def test_what_is_written_is_read_again(config: AippConfig) -> None:
    path = Path("aipp.cfg")
    path.write_text("# a comment\n" + aipp_text(config) + "\n", encoding="utf-8")
    (found,) = read_aipp(path)
    channels = 1 if config.input_format == YUV400 else 3
    cut = lambda numbers: numbers[:channels]  # noqa: E731  (a fourth channel is never written)
    assert [cut(n) for n in (found.mean, found.low, found.factor)] == [
        cut(n) for n in (config.mean, config.low, config.factor)
    ]
    same = {"mean": config.mean, "low": config.low, "factor": config.factor}
    assert type(found)(**{**found.__dict__, **same}) == config


def write(*lines: str) -> Path:
    path = Path("aipp.cfg")
    path.write_text("\n".join(["aipp_op {", *lines, "}"]), encoding="utf-8")
    return path


def test_published_configuration_of_resnet() -> None:
    """NV12 to RGB with crop, mean and factor, and a grey image whose result is known by hand."""
    names = [f"matrix_r{r}c{c}: {JPEG[r][c]}" for r in range(3) for c in range(3)]
    numbers = ["min_chn_0: 123.675", "var_reci_chn_0: 0.0171247538316637", "crop: true", "crop_size_w: 4"]
    bias = ["input_bias_0: 0", "input_bias_1: 128", "input_bias_2: 128", "crop_size_h: 4", "load_start_pos_h: 2"]
    size = ["src_image_size_w : 8", "src_image_size_h : 8", "csc_switch : true", "input_format : YUV420SP_U8"]
    (config,) = read_aipp(write("aipp_mode:static", *size, *numbers, *names, *bias))
    image = np.full((1, 12, 8), 128, np.uint8)
    image[:, :8] = np.arange(64).reshape(8, 8)
    found = apply_aipp(image, config, (3, 4, 4), F32)
    luma = np.arange(64).reshape(8, 8)[2:6, :4]
    expected = [[half(half(int(y) - half(123.675)) * half(0.0171247538316637)) for y in row] for row in luma]
    assert found[0, 0].tolist() == expected
    assert found[0, 1].tolist() == luma.tolist() == found[0, 2].tolist()


def test_crop_without_a_size_is_the_models() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(1, 4, 5, 3)
    found = apply_aipp(image, AippConfig("RGB888_U8", crop=Crop(1, 2, 0, 0)), (3, 2, 3), U8)
    assert np.array_equal(found, image[:, 1:3, 2:5].transpose(0, 3, 1, 2))


def test_colour_beyond_the_range_is_cut_off() -> None:
    csc = Csc(((512, 0, 0), (-256, 0, 0), (255, 0, 0)), (0, 0, 0), (0, 0, 0))
    image = np.full((1, 2, 2, 3), 200, np.uint8)
    found = apply_aipp(image, AippConfig("RGB888_U8", csc=csc), (3, 2, 2), U8)
    assert found[0, :, 0, 0].tolist() == [255, 0, 199]  # 255 * 200 / 256 = 199.2, cut


def test_grey_is_the_first_row_of_the_matrix() -> None:
    csc = Csc(((77, 150, 29), (0, 0, 0), (0, 0, 0)), (0, 0, 0), (0, 0, 0))
    image = np.array([[[[10, 20, 30]]]], np.uint8)
    found = apply_aipp(image, AippConfig("RGB888_U8", csc=csc), (1, 1, 1), F32)
    assert found.tolist() == [[[[(77 * 10 + 150 * 20 + 29 * 30) >> 8]]]]


def test_default_matrix_depends_on_the_format() -> None:
    base = ("aipp_mode: static", "csc_switch: true")
    (yuv,) = read_aipp(write(*base, "input_format: YUV420SP_U8"))
    (rgb,) = read_aipp(write(*base, "input_format: RGB888_U8"))
    assert yuv.csc == Csc(((298, 516, 0), (298, -100, -208), (298, 0, 409)), (16, 128, 128), (0, 0, 0))
    assert rgb.csc == Csc(((66, 129, 25), (-38, -74, 112), (112, -94, -18)), (0, 0, 0), (16, 128, 128))


STATIC_RGB = ("aipp_mode: static", "input_format: RGB888_U8")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("aipp_mode: dynamic", "max_src_image_size: 100"), "aipp_mode is dynamic"),
        (("input_format: RGB888_U8",), "aipp_mode is undefined"),
        (("aipp_mode: static",), "input_format is missing"),
        (("aipp_mode: static", "input_format: RAW10"), "RAW10 cannot be applied"),
        (("aipp_mode: static", "input_format: BGR"), "BGR"),
        ((*STATIC_RGB, "resize: true"), "resize"),
        ((*STATIC_RGB, "rotation_angle: 1"), "rotation_angle"),
        ((*STATIC_RGB, "cpadding_value: 1.0"), "cpadding_value"),
        ((*STATIC_RGB, "single_line_mode: true"), "single_line_mode"),
        ((*STATIC_RGB, 'related_input_name: "data"'), "related_input_name"),
        ((*STATIC_RGB, "mean_chn_1: 256"), "mean_chn_1 is 256"),
        ((*STATIC_RGB, "mean_chn_1: 1.5"), "not an AIPP configuration"),
        ((*STATIC_RGB, "matrix_r0c0: 40000"), "matrix_r0c0 is 40000"),
        ((*STATIC_RGB, "left_padding_size: 33"), "left_padding_size is 33"),
        ((*STATIC_RGB, "var_reci_chn_0: inf"), "var_reci_chn_0 is inf"),
        ((*STATIC_RGB, "var_reci_chn_0: 1.0", "var_reci_chn_0: 1.0"), "var_reci_chn_0"),
        ((*STATIC_RGB, "no_such_field: 1"), "no_such_field"),
        ((*STATIC_RGB, "src_image_size_w: 1"), "src_image_size_w is 1"),
        (("aipp_mode: static", "input_format: YUV420SP_U8", "load_start_pos_w: 3"), "load_start_pos_w is 3"),
        (("aipp_mode: static", "input_format: YUV400_U8", "csc_switch: true"), "has no colours"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(lines: Sequence[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_aipp(write(*lines))


def test_files_that_are_no_configuration() -> None:
    for content in (b"", b"\xff\xfe", b"aipp_op {", b"x: 1"):
        Path("a.cfg").write_bytes(content)
        with pytest.raises(DataError, match="a.cfg"):
            read_aipp("a.cfg")
    with pytest.raises(DataError, match="no such file"):
        read_aipp("none.cfg")
    Path("a.cfg").write_text("aipp_op { aipp_mode: static input_format: RGB888_U8 } " * 2, encoding="utf-8")
    with pytest.raises(DataError, match="same related_input_rank"):
        read_aipp("a.cfg")


@pytest.mark.parametrize(
    ("config", "size", "words"),
    [
        (AippConfig("RGB888_U8", crop=Crop(0, 0, 3, 3)), (3, 3, 3), "leaves the image"),
        (AippConfig("RGB888_U8", crop=Crop(0, 0, 0, 0), padding=Padding(1, 1, 1, 1, 0.0)), (3, 4, 4), "size of the cr"),
        (AippConfig("RGB888_U8", crop=Crop(0, 0, 0, 0)), (3, None, None), "size of the cr"),
        (AippConfig("RGB888_U8"), (3, 4, 4), "shape \\[3, 2, 2\\], the model takes \\[3, 4, 4\\]"),
        (AippConfig("RGB888_U8"), (1, 2, 2), "shape \\[3, 2, 2\\]"),
    ],
)
def test_result_that_does_not_fit_is_refused(config: AippConfig, size: tuple[int, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        apply_aipp(np.zeros((1, 2, 2, 3), np.uint8), config, size, F32)
