"""Print how far source and fake-quant model lie apart in deep random networks whose biases ``bias`` has rounded.

Both make the same numbers to float rounding until a tie flips: a sum within that rounding of the middle between two
integers becomes the one here and the other there. Distances are in standard deviations of the output.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import amct_onnx as amct

NETWORKS = 20
"""Networks of each kind and depth."""
SAMPLES = 256
FLIPPED = 1e-4
"""Standard deviations: float rounding stays far below, one step of a quantizer far above."""


class Network:
    """A stack of quantized layers with random weights; scales are those of the numbers that come in."""

    def __init__(self, rng: np.random.Generator, inputs: np.ndarray) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._rng, self._numbers, self._name = rng, inputs, "x"

    def constant(self, content: np.ndarray) -> str:
        """Name of a new initializer."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(content), name))
        return name

    def node(self, op_type: str, *inputs: str) -> str:
        """Name of the result of a new node."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], f"{op_type}_{name}"))
        return name

    def layer(self, op_type: str, behind: str, channels: int) -> None:
        """Q, DQ, a layer of as many channels in and out, and an activation."""
        scale = np.float32(np.abs(self._numbers).max() / 127)
        factors = self.constant(scale), self.constant(np.int8(0))
        rounded = self.node("DequantizeLinear", self.node("QuantizeLinear", self._name, *factors), *factors)
        weight = self._rng.integers(-127, 128, (channels, channels)).astype(np.int8)
        step = np.float32(1.5 / np.sqrt(channels) / 73)  # 73: standard deviation of the integers
        bias = self._rng.normal(size=channels).astype(np.float32) * np.float32(0.1)
        shape = (channels, channels) if op_type == "Gemm" else (channels, channels, 1, 1)
        held = self.constant(weight.T if op_type == "Gemm" else weight.reshape(shape))
        weights = self.node("DequantizeLinear", held, self.constant(step))
        self._name = self.node(behind, self.node(op_type, rounded, weights, self.constant(bias)))
        rounding = np.clip(np.rint(self._numbers / scale), -128, 127) * scale
        sums = np.einsum("ck,nk...->nc...", weight.astype(np.float32) * step, rounding)
        sums += bias.reshape(1, -1, *[1] * (sums.ndim - 2))
        self._numbers = np.tanh(sums) if behind == "Tanh" else np.maximum(sums, 0)

    def save(self, path: Path, shape: tuple[int, ...]) -> None:
        """Write the model, of one input and one output of the same shape."""
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape[1:]]) for name in ("x", self._name)]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.initializers)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def gemms(network: Network, depth: int) -> None:
    """64 x 64 with Relu."""
    for _ in range(depth):
        network.layer("Gemm", "Relu", 64)


def convolutions(network: Network, depth: int) -> None:
    """1 x 1 of 16 channels, Tanh behind every seventh and Relu behind the others."""
    for index in range(depth):
        network.layer("Conv", "Relu" if index % 7 else "Tanh", 16)


def distance(build: Callable[[Network, int], None], depth: int, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Distance of each output element, in standard deviations; the shape of the output."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(np.float32)
    network = Network(rng, x)
    build(network, depth)
    with tempfile.TemporaryDirectory() as folder:
        source, rounded = Path(folder) / "m.onnx", Path(folder) / "rounded.onnx"
        network.save(source, shape)
        amct.quantize_bias(source, rounded)
        report = amct.convert_qat_model(rounded, Path(folder) / "out")
        paths = (str(rounded), str(report.fake_quant_model))
        first, second = (ort.InferenceSession(p, amct.AMCT_SO).run(None, {"x": x})[0] for p in paths)
    return np.abs(first - second) / first.std()


def main() -> None:
    """Print one line for each kind and depth."""
    kinds = [("Gemm 64 x 64, Relu", gemms, (SAMPLES, 64), d) for d in (5, 10, 20, 40)]
    kinds += [("Conv 1 x 1 of 16, Tanh", convolutions, (64, 16, 4, 4), 30)]
    for name, build, shape, depth in kinds:
        found = [distance(build, depth, seed, shape) for seed in range(NETWORKS)]
        worst = [float(f.max()) for f in found]
        flips = [f for f in found if f.max() > FLIPPED]
        rest = max((w for w in worst if w <= FLIPPED), default=0.0)
        moved = max((float((f > FLIPPED).mean()) for f in flips), default=0.0)
        print(f"{name}, {depth} layers: {len(flips)} of {NETWORKS} networks with a tie that flips,", end=" ")
        print(f"up to {max(worst):.2g} standard deviations, in at most {moved:.1%} of the elements;", end=" ")
        print(f"the others within {rest:.1g}")


if __name__ == "__main__":
    main()
