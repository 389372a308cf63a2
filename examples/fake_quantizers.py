"""Quantizers for training in PyTorch whose ONNX export is Q/DQ pairs: symmetric int8, as Ascend's chips take them.

Shared by the make scripts of this folder, which need `pip install torch onnx`.
"""

import warnings

import torch
from torch import nn


class Activation(nn.Module):
    """Quantizes a tensor with one scale, which follows the largest magnitude of the batches in training."""

    def __init__(self, momentum: float = 0.05) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            met = x.detach().abs().max()
            self.largest.copy_(met if self.largest == 0 else self.largest + self.momentum * (met - self.largest))
        scale = self.largest.clamp(min=1e-6).item() / 127
        return torch.fake_quantize_per_tensor_affine(x, scale, 0, -128, 127)


def weight(value: torch.Tensor) -> torch.Tensor:
    """Quantizes a weight with one scale for each output channel, its first axis."""
    scale = (value.detach().abs().flatten(1).amax(1) / 127).clamp(min=1e-6)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(value, scale, zero, 0, -128, 127)


class Conv(nn.Conv2d):
    """A convolution with quantized input and weight."""

    def __init__(self, *sizes: int, **options: int) -> None:
        super().__init__(*sizes, **options)
        self.input = Activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(self.input(x), weight(self.weight), self.bias)


class Linear(nn.Linear):
    """A linear layer with quantized input and weight."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.input = Activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.input(x), weight(self.weight), self.bias)


class Product(nn.Module):
    """A matrix product of two quantized activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Activation(), Activation()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.first(a) @ self.second(b)


def export(model: nn.Module, example: torch.Tensor, path: str, name: str, result: str) -> None:
    """Write the trained model; the first axis of input and output is free."""
    axes = {name: {0: "N"}, result: {0: "N"}}
    names = {"input_names": [name], "output_names": [result]}
    warnings.simplefilter("ignore")  # the exporter tells that scales become constants, as they shall
    torch.onnx.export(model.eval(), (example,), path, dynamo=False, opset_version=17, dynamic_axes=axes, **names)
