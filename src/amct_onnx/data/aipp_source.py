"""Data behind AIPP: what a board is fed is opened, and AIPP applied to each feed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.common.input_shape import parse_input_shape
from amct_onnx.data.aipp import apply_aipp, fed_shape, source_size
from amct_onnx.data.aipp_config import XRGB8888, YUV400, YUV420SP, AippConfig, read_aipp
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.source import DataSource, Feed, Labelled
from amct_onnx.errors import DataError

Open = Callable[[Sequence[InputSpec], str, ImageOptions | None], DataSource]
"""Opens the data for other inputs: their specs, --input_shape and the images' options."""


class AippSource(DataSource):
    """The feeds of another source with AIPP applied; ``fed`` is that source."""

    def __init__(self, fed: DataSource, specs: Sequence[InputSpec], configs: dict[str, AippConfig]) -> None:
        """Take what a board is fed, the model's inputs, and the configuration of some of them."""
        self._fed, self._configs = fed, configs
        self._specs = {s.name: s for s in specs}
        self.count = fed.count

    @property
    def fed(self) -> DataSource:
        """See ``DataSource``."""
        return self._fed.fed

    def labelled(self, start: int = 0) -> Iterator[Labelled]:
        """See ``DataSource``."""
        for feed, labels in self._fed.labelled(start):
            yield self._applied(feed), labels

    def _applied(self, feed: Feed) -> Feed:
        out = dict(feed)
        for name, config in self._configs.items():
            spec = self._specs[name]
            size = tuple(n if isinstance(n, int) else None for n in spec.shape[1:])
            out[name] = apply_aipp(feed[name], config, size, spec.dtype)
        return out


class PackedImages(DataSource):
    """RGB or gray images as the bytes of a configuration's format: a fourth byte of 0, or no axis of channels."""

    def __init__(self, images: DataSource, name: str, config: AippConfig) -> None:
        """Take a source of uint8 [N, H, W, 3] or [N, H, W, 1]."""
        self._images, self._name, self._config = images, name, config
        self.count = images.count

    def labelled(self, start: int = 0) -> Iterator[Labelled]:
        """See ``DataSource``."""
        for feed, labels in self._images.labelled(start):
            yield {self._name: self._packed(feed[self._name])}, labels

    def _packed(self, images: Array) -> Array:
        if self._config.input_format == YUV400:
            return images[..., 0]
        if self._config.input_format == XRGB8888:
            sides = (1, 0) if self._config.swap_ax else (0, 1)
            return np.pad(images, ((0, 0), (0, 0), (0, 0), sides))
        return images


def open_behind_aipp(
    file: str | os.PathLike[str],
    specs: Sequence[InputSpec],
    input_shape: str,
    images: ImageOptions | None,
    *,
    of_images: bool,
    opened: Open,
) -> DataSource:
    """Open the data as a board is fed it, and apply a configuration.

    Args:
        file: the AIPP configuration.
        specs: the model's inputs.
        input_shape: of the model's inputs, as ``open_data`` takes it.
        images: how images are prepared before AIPP.
        of_images: whether the data are image files.
        opened: opens the data.

    Raises:
        DataError: The configuration cannot be read or applied, or does not fit the inputs.
    """
    given = parse_input_shape(input_shape, DataError)
    specs = [replace(s, shape=given.get(s.name, s.shape)) for s in specs]
    configs = {}
    for config in read_aipp(file):
        if config.rank >= len(specs):
            raise DataError(f"{file}: the model has no input {config.rank}. Correct related_input_rank.")
        spec = specs[config.rank]
        _check_input(spec, str(file))
        configs[spec.name] = config
    fed = [_fed_spec(s, configs[s.name]) if s.name in configs else s for s in specs]
    shapes = ";".join(f"{s.name}:{','.join(map(str, s.shape))}" for s in fed if s.name in given and _fixed(s.shape))
    if not of_images:
        return AippSource(opened(fed, shapes, images), specs, configs)
    name, config = next(iter(configs.items()))  # image files of a model with more inputs are refused when opened
    if config.input_format == YUV420SP:
        raise DataError(
            f"{file}: {YUV420SP} is what a video decoder gives, which image files do not hold. Give the bytes as .bin, "
            ".npy or through a Python file."
        )
    if images is not None and images.layout == "NCHW":
        raise DataError("--image_layout: AIPP takes NHWC. Leave it out.")
    shown = [replace(s, shape=(*s.shape[:3], 1 if config.input_format == YUV400 else 3)) for s in fed]
    options = replace(images or ImageOptions(), layout="NHWC")
    return AippSource(PackedImages(opened(shown, "", options), name, config), specs, configs)


def _check_input(spec: InputSpec, file: str) -> None:
    if len(spec.shape) != 4 or spec.dtype not in (np.float32, np.float16, np.uint8):
        raise DataError(
            f"{file}: AIPP makes images, and input '{spec.name}' takes {spec.dtype}{spec.shape_text}. Correct "
            "related_input_rank."
        )


def _fed_spec(spec: InputSpec, config: AippConfig) -> InputSpec:
    height, width = (n if isinstance(n, int) else None for n in spec.shape[2:])
    height, width = source_size(config, height, width)
    if height is None or width is None:
        raise DataError(
            f"AIPP: neither the configuration nor input '{spec.name}' of shape {spec.shape_text} tells the size of "
            "the images. Give src_image_size_w and _h, or --input_shape."
        )
    return InputSpec(spec.name, (spec.shape[0], *fed_shape(config, height, width)), np.dtype(np.uint8))


def _fixed(shape: Sequence[object]) -> bool:
    return all(isinstance(n, int) for n in shape)
