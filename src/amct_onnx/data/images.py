"""A folder of images as feeds: decoded, resized, cropped, normalised and laid out as the model takes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.labels import AnyLabels, labels_of_folders, labels_origin, read_labels
from amct_onnx.data.source import DataSource, Labelled
from amct_onnx.errors import DataError, SettingError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
"""Allowed decoders of Pillow: the usual formats of photographs."""
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Modes of Pillow with 8 bits per channel."""
MAX_PIXELS = 100_000_000
"""Limit for decoded images: a small file can claim any size."""
TIFF_BITS = 258
"""TIFF tag BitsPerSample."""
COLORS = ("rgb", "bgr", "gray")
LAYOUTS = ("NCHW", "NHWC")
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes numbers: ``(pixel * scale - mean) / std``, pixels 0..255.

    Attributes:
        resize: () keeps the size; (n,) makes the shorter side n; (height, width) both, whatever the proportions.
        crop: () keeps all; (n,) or (height, width) cut out of the middle.
        mean: one number, or one for each channel in the order of ``color``.
        std: likewise.
        scale: 1/255 when None and the input is float, 1 when it is an integer.
        layout: "NCHW" or "NHWC"; "" goes by where the model has 1 or 3 channels.
        color: "rgb", "bgr" or "gray"; "" is rgb, or gray where the model takes one channel.
        filter: filter of the resize, with antialiasing (Pillow's).

    Raises:
        SettingError: A value that it cannot have.
    """

    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float | None = None
    layout: str = ""
    color: str = ""
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        """Check what a caller chose."""
        for name, known in (("layout", LAYOUTS), ("color", COLORS), ("filter", FILTERS)):
            value = getattr(self, name)
            if value not in known and (value or name == "filter"):
                raise SettingError(f"--image_{name} is '{value}'. Use one of {', '.join(known)}.")
        for name in ("resize", "crop"):
            sizes = getattr(self, name)
            if len(sizes) > 2 or any(n < 1 for n in sizes):
                raise SettingError(
                    f"--image_{name} is {_listed(sizes)}. Give one positive number, or height and width."
                )
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, 3):
                raise SettingError(
                    f"--image_{name} is {_listed(getattr(self, name))}. Give one number, or one for each channel."
                )
        if any(s == 0 or not np.isfinite(s) for s in self.std):
            raise SettingError(f"--image_std is {_listed(self.std)}. Give numbers other than 0.")


def _listed(numbers: Sequence[float]) -> str:
    """As they are typed."""
    return ",".join(f"{n:g}" for n in numbers) or "empty"


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, or else in its sub-folders, in the order of their names."""
    own = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
    if own:
        return own
    inner = sorted(f for f in folder.iterdir() if f.is_dir())
    return [f for d in inner for f in sorted(d.iterdir()) if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()]


class ImageFolder(DataSource):
    """Images of one folder; labels from a file, or from the names of its sub-folders."""

    def __init__(
        self,
        folder: Path,
        inputs: Sequence[InputSpec],
        options: ImageOptions,
        labels: AnyLabels | None = None,
    ) -> None:
        """Find the files; each is opened when its turn comes.

        Raises:
            DataError: The model takes no images, or files and labels do not fit.
        """
        self._folder, self._options = folder, options
        self._files = image_files(folder)
        self._spec = _image_input(folder, inputs)
        self._layout, self._color = _layout_and_color(self._spec, options, folder)
        batch = self._spec.batch or 1
        if len(self._files) % batch:
            raise DataError(
                f"{folder}: its {counted(len(self._files), 'image is', 'images are')} not a multiple of {batch}, the "
                "batch that the model fixes. Add or remove some, or export the model with a free batch."
            )
        self._batch, self.count = batch, len(self._files) // batch
        names = [f.relative_to(folder).as_posix() for f in self._files]
        self._labels: Array | None = None
        if labels is not None:
            self._labels = read_labels(labels, names)
            if len(self._labels) != len(names):
                raise DataError(
                    f"{labels_origin(labels)}: holds {counted(len(self._labels), 'label')} for the "
                    f"{counted(len(names), 'image')} of {folder}. Give one for each."
                )
        elif all("/" in n for n in names):
            self._labels = labels_of_folders([n.split("/")[0] for n in names])

    def labelled(self, start: int = 0) -> Iterator[Labelled]:
        """See ``DataSource``; nothing before the position is opened."""
        for first in range(start * self._batch, len(self._files), self._batch):
            files = self._files[first : first + self._batch]
            images = [self._image(f) for f in files]
            shapes = {i.shape for i in images}
            if len(shapes) > 1:
                raise DataError(f"{files[0]}: the images of a batch differ in size. Give --image_resize, --image_crop.")
            labels = None if self._labels is None else self._labels[first : first + self._batch]
            yield {self._spec.name: images[0][None] if len(images) == 1 else np.stack(images)}, labels

    def _image(self, file: Path) -> Array:
        """Float or uint8 [C, H, W] or [H, W, C]."""
        kind, options = self._spec.dtype, self._options
        pixels = np.asarray(_decoded(file, options, self._check_size, gray=self._color == "gray"))
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if self._color == "bgr":
            pixels = pixels[:, :, ::-1]
        if self._layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        if kind.kind == "f":
            return self._normalised(pixels)
        if options.scale not in (None, 1) or any(m != 0 for m in options.mean) or any(s != 1 for s in options.std):
            raise DataError(
                f"{file}: input '{self._spec.name}' takes {kind}, so that pixels are fed as they are. Leave out "
                "--image_scale, --image_mean and --image_std."
            )
        return np.ascontiguousarray(pixels, kind)

    def _normalised(self, pixels: Array) -> Array:
        """Normalise in float64 and round once, by a table of the 256 values of each channel."""
        options, kind = self._options, self._spec.dtype
        scale = options.scale if options.scale is not None else 1 / 255
        axis = 0 if self._layout == "NCHW" else 2
        values = np.empty(pixels.shape, kind)
        for channel in range(pixels.shape[axis]):
            mean, std = (v[min(channel, len(v) - 1)] for v in (options.mean, options.std))
            with np.errstate(over="ignore"):  # infinity, as the cast of one number gives
                table = ((np.arange(256) * scale - mean) / std).astype(kind)
            place = (channel,) if axis == 0 else (slice(None), slice(None), channel)
            values[place] = table[pixels[place]]
        return values

    def _check_size(self, file: Path, width: int, height: int) -> None:
        """From the header alone: a small file can claim any size.

        Raises:
            DataError: An image of that size does not fit the input.
        """
        channels = 1 if self._color == "gray" else 3
        shape = (channels, height, width) if self._layout == "NCHW" else (height, width, channels)
        if not self._spec.fits((self._batch, *shape)):
            raise DataError(
                f"{file}: gives an array of shape {list(shape)}, input '{self._spec.name}' takes "
                f"{replace(self._spec, shape=self._spec.shape[1:]).shape_text}. Give --image_resize and --image_crop."
            )


def _decoded(
    file: Path, options: ImageOptions, check_size: Callable[[Path, int, int], None], *, gray: bool
) -> Image.Image:
    """The image as Pillow's RGB or L, resized and cropped; decoded only when what its header says is all right."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours, below
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"{file}: claims {width} x {height} pixels, more than {MAX_PIXELS}. Scale it down.")
                if image.mode not in MODES or _bits(image) > 8:
                    raise DataError(
                        f"{file}: its pixels are not of 8 bits per channel. Save it with 8 bits, or give the numbers "
                        "as .npz or through a Python file."
                    )
                resized = _resized(file, width, height, options)
                cropped = _cropped(file, *resized, options)
                check_size(file, *cropped)
                if image.has_transparency_data and _is_transparent(image):
                    raise DataError(
                        f"{file}: has transparent pixels, and the model takes none. Save it over a background, without "
                        "transparency."
                    )
                converted = image.convert("L" if gray else "RGB")
    except DataError:
        raise
    except Exception as error:  # decoders raise many classes on malformed files
        raise DataError(f"{file}: cannot be decoded ({error}). Remove it or save it again.") from error
    if resized != converted.size:
        converted = converted.resize(resized, Image.Resampling[options.filter.upper()])
    if cropped != converted.size:
        left, top = (resized[0] - cropped[0]) // 2, (resized[1] - cropped[1]) // 2
        converted = converted.crop((left, top, left + cropped[0], top + cropped[1]))
    return converted


def _bits(image: Image.Image) -> int:
    """Bits per channel in the file: of 16 Pillow keeps 8 where it has no mode of more, without a word."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:  # TIFF
        return max((int(n) for n in np.atleast_1d(tags.get(TIFF_BITS, 1))), default=1)
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if image.format == "PNG" and str(arguments[0]).endswith("16B"):
            return 16
        if image.format == "PPM" and any(isinstance(a, int) and a > 255 for a in arguments[1:]):
            return 16
    return 8


def _is_transparent(image: Image.Image) -> bool:
    """Whether dropping the transparency would show what was hidden."""
    alpha = image.getchannel("A") if image.mode in ("LA", "PA", "RGBA") else image.convert("RGBA").getchannel("A")
    return bool(np.asarray(alpha).min(initial=255) < 255)


def _resized(file: Path, width: int, height: int, options: ImageOptions) -> tuple[int, int]:
    """Width and height after --image_resize."""
    if len(options.resize) == 2:
        height, width = options.resize
    elif options.resize:
        short = options.resize[0]
        # as torchvision: the longer side is cut to a whole number
        width, height = (short, short * height // width) if width <= height else (short * width // height, short)
    if width * height > MAX_PIXELS:
        raise DataError(f"{file}: would have {width} x {height} pixels. Give a smaller --image_resize.")
    return width, height


def _cropped(file: Path, width: int, height: int, options: ImageOptions) -> tuple[int, int]:
    """Width and height after --image_crop."""
    if not options.crop:
        return width, height
    high, wide = options.crop if len(options.crop) == 2 else options.crop * 2
    if high > height or wide > width:
        raise DataError(
            f"{file}: {height} x {width} pixels (height x width) are fewer than the crop of {high} x {wide}. Give "
            "--image_resize."
        )
    return wide, high


def _image_input(folder: Path, inputs: Sequence[InputSpec]) -> InputSpec:
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shapes = ", ".join(f"{i.name}{i.shape_text}" for i in inputs)
        raise DataError(
            f"{folder}: holds images, but the model takes {shapes}. Give images to one input with four axes, other "
            "data as .npz, or through a Python file."
        )
    if inputs[0].dtype.kind != "f" and inputs[0].dtype != np.uint8:
        raise DataError(
            f"{folder}: input '{inputs[0].name}' takes {inputs[0].dtype}; images give float or uint8. "
            "Give other data as .npz, or through a Python file."
        )
    return inputs[0]


def _layout_and_color(spec: InputSpec, options: ImageOptions, folder: Path) -> tuple[str, str]:
    layout = options.layout
    if not layout:
        fitting = [k for k, axis in (("NCHW", 1), ("NHWC", 3)) if spec.shape[axis] in (1, 3)]
        if not fitting:
            raise DataError(
                f"{folder}: input '{spec.name}' of shape {spec.shape_text} has 1 or 3 channels on no axis. Give "
                "--image_layout."
            )
        layout = fitting[0]
    channels = spec.shape[1 if layout == "NCHW" else 3]
    color = options.color or ("gray" if channels == 1 else "rgb")
    if isinstance(channels, int) and channels != (1 if color == "gray" else 3):
        raise DataError(
            f"{folder}: {color} images do not fit input '{spec.name}' of shape {spec.shape_text} as {layout}. Give "
            "--image_layout or --image_color."
        )
    if color == "gray" and max(len(options.mean), len(options.std)) > 1:
        raise DataError(f"{folder}: gray images have one channel. Give one number for --image_mean and --image_std.")
    return layout, color
