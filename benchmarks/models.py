"""Q/DQ models of given shapes for the benchmarks: random float weights behind QuantizeLinear/DequantizeLinear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MAX_INLINE = 1_900_000_000


class Chain:
    """Layers one behind the other; weights go into the model file, or to a data file as they are added."""

    def __init__(self, path: Path, weight_bytes: int) -> None:
        self.path = path
        self._data = path.with_suffix(".data") if weight_bytes > MAX_INLINE else None
        if self._data is not None:
            self._data.unlink(missing_ok=True)
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        self._value = "x"
        self._count = 0

    def _constant(self, name: str, array: np.ndarray) -> str:
        if self._data is None or array.nbytes <= 1 << 16:
            tensor = numpy_helper.from_array(array, name)
        else:
            offset = self._data.stat().st_size if self._data.exists() else 0
            with open(self._data, "ab") as file:
                file.write(array.tobytes())
            # never filled: protobuf keeps the memory of a field that was cleared
            tensor = TensorProto(
                name=name,
                dims=array.shape,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                data_location=TensorProto.EXTERNAL,
            )
            for key, value in (("location", self._data.name), ("offset", offset), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
        self._constants.append(tensor)
        return name

    def _quantized(self, name: str, source: str, scale: np.ndarray, axis: int) -> str:
        factors = [
            self._constant(f"{name}_scale", scale),
            self._constant(f"{name}_zero", np.zeros(scale.shape, np.int8)),
        ]
        for kind, inputs, output in (("Quantize", source, f"{name}_q"), ("Dequantize", f"{name}_q", f"{name}_dq")):
            node = helper.make_node(f"{kind}Linear", [inputs, *factors], [output], f"{name}_{kind}Linear", axis=axis)
            self._nodes.append(node)
        return f"{name}_dq"

    def _layer(
        self, shape: tuple[int, ...], axis: int, build: Callable[[str, str, str, str], list[onnx.NodeProto]]
    ) -> None:
        name = f"layer{self._count}"
        self._count += 1
        channels = shape[axis]
        weight = self._constant(f"{name}_weight", self._rng.standard_normal(shape, np.float32))
        bias = self._constant(f"{name}_bias", self._rng.standard_normal(channels, np.float32))
        activation = self._quantized(f"{name}_act", self._value, np.asarray(0.05, np.float32), axis)
        scale = np.full(channels, 4 / 127, np.float32)
        self._nodes += build(name, activation, self._quantized(f"{name}_w", weight, scale, axis), bias)
        self._value = self._nodes[-1].output[0]

    def matmul(self, inputs: int, outputs: int) -> None:
        """MatMul + Add."""
        self._layer(
            (inputs, outputs),
            1,
            lambda name, x, w, b: [
                helper.make_node("MatMul", [x, w], [f"{name}_mm"], name),
                helper.make_node("Add", [f"{name}_mm", b], [f"{name}_y"], f"{name}_add"),
            ],
        )

    def conv(self, outputs: int, inputs: int, kernel: int, group: int = 1) -> None:
        """Conv that keeps the spatial size."""
        self._layer(
            (outputs, inputs // group, kernel, kernel),
            0,
            lambda name, x, w, b: [
                helper.make_node("Conv", [x, w, b], [f"{name}_y"], name, pads=[kernel // 2] * 4, group=group)
            ],
        )

    def save(self, input_shape: list[int | str]) -> None:
        """Write the model file."""
        graph = helper.make_graph(
            self._nodes,
            "benchmark",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info(self._value, TensorProto.FLOAT, None)],
            self._constants,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), self.path)


def matmuls(path: Path, layers: int, side: int) -> None:
    """Equal square MatMuls."""
    chain = Chain(path, layers * side * side * 4)
    for _ in range(layers):
        chain.matmul(side, side)
    chain.save(["n", side])


def convolutions(path: Path, layers: int, channels: int) -> None:
    """Equal convolutions of 3 x 3."""
    chain = Chain(path, layers * channels**2 * 36)
    for _ in range(layers):
        chain.conv(channels, channels, 3)
    chain.save(["n", channels, 8, 8])


def resnet50(path: Path) -> None:
    """The convolutions of ResNet-50 in a row (no shortcuts) and its last layer as a 1 x 1 convolution."""
    chain = Chain(path, 0)
    chain.conv(64, 3, 7)
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            chain.conv(width, channels, 1)
            chain.conv(width, width, 3)
            chain.conv(4 * width, width, 1)
            if block == 0:
                chain.conv(4 * width, 4 * width, 1)
            channels = 4 * width
    chain.conv(1000, channels, 1)
    chain.save(["n", 3, 224, 224])


def mobilenet_v2(path: Path) -> None:
    """The convolutions of MobileNetV2 in a row (no shortcuts)."""
    chain = Chain(path, 0)
    chain.conv(32, 3, 3)
    channels = 32
    for factor, width, blocks in ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)):
        for _ in range(blocks):
            if factor > 1:
                chain.conv(channels * factor, channels, 1)
            chain.conv(channels * factor, channels * factor, 3, channels * factor)
            chain.conv(width, channels * factor, 1)
            channels = width
    chain.conv(1280, channels, 1)
    chain.conv(1000, 1280, 1)
    chain.save(["n", 3, 224, 224])


CASES: dict[str, Callable[[Path], None]] = {
    "mobilenet_v2": mobilenet_v2,
    "resnet50": resnet50,
    "2000_layers": lambda path: matmuls(path, 2000, 16),
    "20000_layers": lambda path: matmuls(path, 20000, 16),
    "1.6GB": lambda path: matmuls(path, 24, 4096),
    "2.5GB": lambda path: matmuls(path, 37, 4096),
    "10GB": lambda path: matmuls(path, 149, 4096),
}
ON_REQUEST = ("10GB", "20000_layers")
