"""Make the models of tests/data/networks: small networks of three kinds, quantized by two exporters.

``dense``: DenseNet's block (BatchNormalization, Relu, Conv 1 x 1, again with 3 x 3, Concat with all before it) and a
transition, trained for a few steps by torch's FX mode, which gives all that a Concat joins one scale.
``ocr``: the detector of PP-OCR in small: MobileNetV3 blocks (hard-swish, squeeze-and-excitation, depthwise), a feature
pyramid (nearest Resize, Add, Concat) and the head (ConvTranspose, Sigmoid), quantized by onnxruntime as it comes:
every tensor.
``windows``: a cross-stage block as in YOLO, which splits its input in halves, and attention in windows as in Swin. As
the number of images is free, the exporter computes the sizes of halves and windows in the graph. Quantized as ``ocr``.

The project's environments hold no torch: run it with torch 2.13, onnx 1.23 and onnxruntime 1.32, which made the files.

python tests/network_models.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
    QConfigMapping,
    disable_observer,
)
from torch.ao.quantization.quantize_fx import prepare_qat_fx

FOLDER = Path(__file__).parent / "data" / "networks"
SIZE, OPSET, STEPS = 32, 13, 4


class DenseLayer(nn.Module):
    """What a block adds to its input: ``growth`` channels."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        middle = self.conv1(torch.relu(self.norm1(features)))
        return torch.cat([features, self.conv2(torch.relu(self.norm2(middle)))], 1)


class Dense(nn.Module):
    """A stem, two blocks of three layers with a transition between, and a classifier."""

    def __init__(self, growth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.first = nn.Sequential(*(DenseLayer(8 + i * growth, growth) for i in range(3)))
        self.transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 12, 1), nn.AvgPool2d(2))
        self.second = nn.Sequential(*(DenseLayer(12 + i * growth, growth) for i in range(3)))
        self.last, self.classifier = nn.BatchNorm2d(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = self.second(self.transition(self.first(self.stem(x))))
        return self.classifier(torch.relu(self.last(features)).mean((2, 3)))


class Excited(nn.Module):
    """A MobileNetV3 block: expand, depthwise, squeeze and excite, project, and its input where the shapes agree."""

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(inputs, wide, 1), nn.BatchNorm2d(wide), nn.Hardswish())
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(wide), nn.Hardswish())
        gate = (nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 4, 1), nn.ReLU(), nn.Conv2d(4, wide, 1), nn.Hardsigmoid())
        self.gate, self.project = nn.Sequential(*gate), nn.Conv2d(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = self.depthwise(self.expand(x))
        result = self.project(wide * self.gate(wide))
        return result + x if self.residual else result


class Detector(nn.Module):
    """Stem, backbone of three stages, feature pyramid, head: the probability that a pixel belongs to text."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.stages = nn.ModuleList(
            nn.Sequential(Excited(i, 2 * i, o, 2), Excited(o, 2 * o, o, 1)) for i, o in ((8, 8), (8, 12), (12, 16))
        )
        self.inner = nn.ModuleList(nn.Conv2d(c, 8, 1, bias=False) for c in (8, 12, 16))
        self.outer = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1, bias=False) for _ in range(3))
        self.head = nn.Sequential(
            *(nn.Conv2d(12, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, 2)),
            *(nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, 2), nn.Sigmoid()),
        )

    def forward(self, x: Tensor) -> Tensor:
        found, current = [], self.stem(x)
        for stage, inner in zip(self.stages, self.inner, strict=True):
            current = stage(current)
            found.append(inner(current))
        for index in (1, 0):
            found[index] = found[index] + nn.functional.interpolate(found[index + 1], scale_factor=2.0, mode="nearest")
        parts = [conv(f) for conv, f in zip(self.outer, found, strict=True)]
        scaled = [
            nn.functional.interpolate(p, scale_factor=2.0**i, mode="nearest") if i else p for i, p in enumerate(parts)
        ]
        return self.head(torch.cat(scaled[::-1], 1))


class Windows(nn.Module):
    """A stem, halves of which one goes through a Conv more, attention in square windows of pixels, a head."""

    def __init__(self, side: int = 4, channels: int = 16) -> None:
        super().__init__()
        self.side = side
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 4, 1), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(channels // 2, channels // 2, 3, padding=1), nn.SiLU())
        self.join = nn.Conv2d(channels // 2 * 3, channels, 1)
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.stem(x).chunk(2, 1)
        pixels = self.join(torch.cat([first, second, self.deep(second)], 1)).permute(0, 2, 3, 1)
        batch, height, width, channels = pixels.shape
        rows, columns = height // self.side, width // self.side
        cut = pixels.view(batch, rows, self.side, columns, self.side, channels).permute(0, 1, 3, 2, 4, 5)
        windows = cut.reshape(-1, self.side * self.side, channels)
        weights = (self.query(windows) @ self.key(windows).transpose(1, 2)).softmax(-1)
        seen = weights @ self.value(windows)
        images = seen.shape[0] // (height * width // self.side // self.side)
        whole = seen.view(images, rows, columns, self.side, self.side, channels).permute(0, 1, 3, 2, 4, 5)
        return self.head((pixels + whole.reshape(images, height, width, channels)).mean((1, 2)))


class _Samples(CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._left: Iterator[Any] = iter(
            [{"x": rng.normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)} for _ in range(4)]
        )

    def get_next(self) -> Any:
        return next(self._left, None)


def _settled(model: nn.Module) -> nn.Module:
    """With statistics of BatchNormalization other than those of its start."""
    model.train()
    with torch.no_grad():
        for _ in range(STEPS):
            model(torch.randn(8, 3, SIZE, SIZE))
    return model.eval()


def _exported(model: nn.Module, path: Path) -> None:
    torch.onnx.export(
        *(model, (torch.randn(1, 3, SIZE, SIZE),), str(path)),
        input_names=["x"],
        output_names=["y"],
        opset_version=OPSET,
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        dynamo=False,
    )


def _dense() -> None:
    activation = FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8, reduce_range=False
    )
    weight = FakeQuantize.with_args(
        observer=PerChannelMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    )
    mapping = QConfigMapping().set_global(QConfig(activation=activation, weight=weight))
    model = prepare_qat_fx(_settled(Dense()).train(), mapping, (torch.randn(1, 3, SIZE, SIZE),))
    _settled(model).apply(disable_observer)
    _exported(model, FOLDER / "dense.onnx")


def _every_tensor(model: nn.Module, name: str) -> None:
    """Quantized as onnxruntime does it when nothing is chosen."""
    source = FOLDER / "float.onnx"
    _exported(_settled(model), source)
    quantize_static(
        *(str(source), str(FOLDER / f"{name}.onnx"), _Samples()),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    source.unlink()


if __name__ == "__main__":
    torch.manual_seed(0)
    FOLDER.mkdir(exist_ok=True)
    _dense()
    _every_tensor(Detector(), "ocr")
    _every_tensor(Windows(), "windows")
