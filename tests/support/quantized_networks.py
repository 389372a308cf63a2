"""Small networks of two kinds, quantized by onnxruntime as it comes: every tensor gets a quantizer.

``dense``: BatchNormalization, Relu and Conv, whose result joins all before it (DenseNet). ``ocr``: Conv and hard-swish,
squeeze-and-excitation, and a residual, twice, with a nearest Resize and a Concat behind (the detector of PP-OCR).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

SIZE = 16
GROWTH, BLOCKS = 8, 4
CHANNELS = 8


def feeds(count: int) -> dict[str, np.ndarray]:
    """Inputs of either network."""
    return {"x": np.random.default_rng(1).normal(size=(count, 8, SIZE, SIZE)).astype(np.float32)}


def quantized(kind: str, folder: Path) -> Path:
    """The quantized model of one network.

    Args:
        kind: ``dense`` or ``ocr``.
        folder: where files are written.
    """
    source, target = folder / f"{kind}_float.onnx", folder / f"{kind}.onnx"
    onnx.save(_dense() if kind == "dense" else _ocr(), str(source))
    quantize_static(
        str(source),
        str(target),
        _Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"WeightSymmetric": True},
    )
    if kind == "dense":
        _share_factors(target)
    return target


def _share_factors(path: Path) -> None:
    """Give all that a Concat joins, and its result, one scale and zero point, as other exporters do."""
    model = onnx.load(str(path))
    joined = {"x", *(f"{label}{block}" for block in range(BLOCKS) for label in "cd")}
    tensors = {t.name: t for t in model.graph.initializer}
    for kind in ("scale", "zero_point"):
        last = numpy_helper.to_array(tensors[f"d{BLOCKS - 1}_{kind}"])
        for name in joined:
            tensors[f"{name}_{kind}"].CopyFrom(numpy_helper.from_array(last, f"{name}_{kind}"))
    onnx.save(model, str(path))


class _Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self._left: Iterator[dict[str, np.ndarray]] = iter([feeds(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


class _Text:
    """A graph under construction as text."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(0)

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants[name] = array
        return name

    def conv(self, source: str, result: str, inputs: int, outputs: int, kernel: int = 1) -> None:
        weight = self._rng.normal(size=(outputs, inputs, kernel, kernel)) / np.sqrt(inputs * kernel**2)
        self.constant(f"{result}_w", weight.astype(np.float32))
        pads = ", ".join(["1" if kernel == 3 else "0"] * 4)
        self.lines.append(f"{result} = Conv<pads=[{pads}]>({source}, {result}_w)")

    def model(self, result: str) -> onnx.ModelProto:
        body = "\n".join(self.lines)
        text = f"g (float[n, 8, {SIZE}, {SIZE}] x) => (float[n, c, h, v] {result}) {{ {body} }}"
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
        model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in self.constants.items())
        onnx.checker.check_model(model)
        return model


def _dense() -> onnx.ModelProto:
    t, rng = _Text(), np.random.default_rng(2)
    features, width = "x", 8
    for block in range(BLOCKS):
        for name, low in (("g", 0.5), ("b", -0.5), ("m", -0.1), ("v", 0.5)):
            t.constant(f"{name}{block}", rng.uniform(low, low + 1, width).astype(np.float32))
        t.lines.append(f"n{block} = BatchNormalization({features}, g{block}, b{block}, m{block}, v{block})")
        t.lines.append(f"r{block} = Relu(n{block})")
        t.conv(f"r{block}", f"c{block}", width, GROWTH, 3)
        t.lines.append(f"d{block} = Concat<axis=1>({features}, c{block})")
        features, width = f"d{block}", width + GROWTH
    t.conv(features, "y", width, 8)
    return t.model("y")


def _ocr() -> onnx.ModelProto:
    t = _Text()
    t.constant("up", np.array([1, 1, 2, 2], np.float32))
    source = "x"
    for block in range(2):
        t.conv(source, f"c{block}", CHANNELS, CHANNELS, 3)
        t.lines.append(f"h{block} = HardSigmoid<alpha=0.16666667>(c{block}) s{block} = Mul(c{block}, h{block})")
        t.lines.append(f"p{block} = GlobalAveragePool(s{block})")
        t.conv(f"p{block}", f"e{block}", CHANNELS, CHANNELS)
        t.lines.append(f"k{block} = HardSigmoid(e{block}) m{block} = Mul(s{block}, k{block})")
        t.lines.append(f"a{block} = Add(m{block}, {source})")
        source = f"a{block}"
    t.lines.append('l = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a1) u = Resize<mode="nearest">(l, , up)')
    t.lines.append("j = Concat<axis=1>(u, a0)")
    t.conv("j", "y", 2 * CHANNELS, 8)
    return t.model("y")
