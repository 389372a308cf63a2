"""Lowering changes no integer: the source and the lowered models agree bit for bit, for all attributes.

Every scale is a power of two and every bias a multiple of scale_d * scale_w times the largest alpha, so that no bias is
rounded and onnxruntime's float32 computes the source's layer in exact integers times a power of two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from amct_onnx import convert_qat_model
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.plan.ledger import LayerEntry
from amct_onnx.verbs.check.report import ERROR
from amct_onnx.verbs.convert.report import ConversionReport
from support.deploy_evaluator import Evaluator, attributes, run
from support.qdq_builder import QdqBuilder

QUICK = settings(
    max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
SCALE_D, SCALE_W = 2.0**-4, 2.0**-6
ALPHAS = (1.0, 0.5, 4.0, -1.0)
STEP = SCALE_D * SCALE_W * max(ALPHAS)
OFFSETS = (-128, -7, 0, 127)
OPSETS = tuple(v for v in (11, 13, 17, 19, 21, 24) if v <= onnx.defs.onnx_opset_version())
SPELLED = {"kernel_shape", "strides", "pads", "dilations", "group"}


class Layer:
    """One layer on one quantized input, and what converting it gave."""

    def __init__(self, draw: st.DrawFn, shape: Sequence[int]) -> None:
        self.draw = draw
        self.b = QdqBuilder(draw(st.sampled_from(OPSETS)))
        self.rng = np.random.default_rng(draw(st.integers(0, 999)))
        self.shape = shape
        self.offset = draw(st.sampled_from(OFFSETS))
        self.size_is_open = draw(st.booleans())
        self.b.input("x", [f"d{i}" for i in range(len(shape))] if self.size_is_open else shape)
        self.input = self.b.activation("x", SCALE_D, np.asarray(self.offset, np.int8))
        self.per_channel = False
        self.options: dict[str, Any] = {}

    def weight(self, shape: Sequence[int], axis: int, channels: int) -> str:
        """int8; one scale, or one for each output channel."""
        integers = self.rng.integers(-127, 128, shape).astype(np.int8)
        self.per_channel = self.b.opset >= 13 and channels == shape[axis] and self.draw(st.booleans())
        if not self.per_channel:
            return self.b.weight(integers, SCALE_W, None, np.int8(0))
        scale = (SCALE_W * 2.0 ** -self.rng.integers(0, 3, channels)).astype(np.float32)
        return self.b.weight(integers, scale, axis, np.zeros(channels, np.int8))

    def bias(self, shape: Sequence[int]) -> str:
        return self.b.constant((self.rng.integers(-3000, 3000, shape) * STEP).astype(np.float32))

    def convert(self, output: str) -> tuple[ConversionReport, LayerEntry]:
        """Convert and compare; the one layer's entry."""
        self.b.output(output, TensorProto.FLOAT, None)
        x = self.rng.normal(size=self.shape).astype(np.float32) * 4
        with tempfile.TemporaryDirectory() as name:
            source = self.b.save(Path(name))
            report = convert_qat_model(source, Path(name) / "m", **self.options)
            self.deploy = onnx.load(report.deploy_model)
            evaluator = Evaluator(report.deploy_model)
            deploy, fake = evaluator.run({"x": x}), run(report.fake_quant_model, {"x": x})
            expected = run(source, {"x": x}, qdq_source=True)
        assert evaluator.stats.exact_in_float32
        (key,) = expected
        np.testing.assert_array_equal(deploy[key], expected[key])
        np.testing.assert_array_equal(fake[key], expected[key])
        assert report.check is not None
        (entry,) = report.layers
        assert not report.check.of(ERROR), report.check
        return report, entry

    def refused(self, output: str, message: str) -> None:
        """The model is refused, and nothing is written."""
        self.b.output(output, TensorProto.FLOAT, None)
        with tempfile.TemporaryDirectory() as name:
            source = self.b.save(Path(name))
            with pytest.raises(UnsupportedModelError, match=message):
                convert_qat_model(source, Path(name) / "out" / "m", **self.options)
            assert not (Path(name) / "out").exists()

    def node(self, op_type: str) -> onnx.NodeProto:
        """The one node of that operator in the deploy model."""
        (found,) = (n for n in self.deploy.graph.node if n.op_type == op_type)
        assert "" not in found.input
        return found


def ints(draw: st.DrawFn, count: int, low: int, high: int) -> list[int]:
    return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))


@QUICK
@given(st.data())
def test_conv(data: st.DataObject) -> None:
    """Padding by rule or in numbers on odd and even sizes, strides, dilations, groups, one to three axes."""
    draw = data.draw
    spatial, group = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    size = ints(draw, spatial, 5, 7)
    layer = Layer(draw, (2, 4, *size))
    kernel, strides, dilations = ints(draw, spatial, 1, 3), ints(draw, spatial, 1, 3), ints(draw, spatial, 1, 2)
    rule = draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if rule.startswith("SAME"):
        dilations = [1] * spatial  # onnxruntime computes no other
    if spatial == 3:
        dilations[0] = 1  # no int8 form otherwise
    extra: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": group}
    if rule == "NOTSET":
        extra["pads"] = ints(draw, 2 * spatial, 0, 2)
    else:
        extra["auto_pad"] = rule
    if draw(st.booleans()):
        extra["kernel_shape"] = kernel
    inputs = [layer.input, layer.weight((6, 4 // group, *kernel), 0, 6)]
    bias = draw(st.sampled_from(["none", "empty", "bias"]))
    inputs += [layer.bias([6])] if bias == "bias" else [""] if bias == "empty" else []
    layer.options["keep_conv1d"] = draw(st.booleans())
    output = layer.b.node("Conv", inputs, **extra)
    open_size = rule.startswith("SAME") and max(strides) > 1 and layer.size_is_open
    if open_size and spatial == 3:
        layer.refused(output, "auto_pad depends on the size of its input")
        return
    _, entry = layer.convert(output)
    assert entry.reason == ("padding-unknown" if open_size else None)
    if not open_size:
        node = layer.node("Conv")
        assert set(attributes(node)) == SPELLED
        assert len(attributes(node)["kernel_shape"]) == max(spatial, 1 if layer.options["keep_conv1d"] else 2)


@QUICK
@given(st.data())
def test_conv_transpose(data: st.DataObject) -> None:
    """The size of the output by pads, output_padding, output_shape or a rule."""
    draw = data.draw
    spatial, group = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2]))
    size, kernel = ints(draw, spatial, 3, 5), ints(draw, spatial, 1, 4)
    layer = Layer(draw, (2, 4, *size))
    strides, dilations = ints(draw, spatial, 1, 3), ints(draw, spatial, 1, 2)
    extra: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": group}
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    padding = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)]
    if draw(st.booleans()):
        extra["output_padding"] = padding
    full = [s * (n - 1) + r for s, n, r in zip(strides, size, reach, strict=True)]
    form = draw(st.sampled_from(["pads", "pads", "shape", "VALID"]))
    if form == "pads":
        extra["pads"] = [draw(st.integers(0, max(0, (r - 1) // 2))) for r in reach * 2]
    elif form == "VALID":
        extra["auto_pad"] = form
    else:
        extra["output_shape"] = [draw(st.integers(max(1, n - 2), n)) for n in full]
    inputs = [layer.input, layer.weight((4, 3, *kernel), 1, 3 * group)]
    inputs += [layer.bias([3 * group])] if draw(st.booleans()) else []
    output = layer.b.node("ConvTranspose", inputs, **extra)
    if form == "shape" and layer.size_is_open:
        layer.refused(output, "output_shape = .* depends on the size of its input")
        return
    _, entry = layer.convert(output)
    assert entry.reason is None
    assert set(attributes(layer.node("ConvTranspose"))) - {"output_padding"} == SPELLED


@QUICK
@given(st.data())
def test_gemm(data: st.DataObject) -> None:
    """alpha, beta, transA and transB; a bias of each shape; one scale for each channel in three ways."""
    draw = data.draw
    turned, trans_b, rows = draw(st.booleans()), draw(st.booleans()), draw(st.integers(2, 3))
    layer = Layer(draw, (5, rows) if turned else (rows, 5))
    extra: dict[str, Any] = {"transA": int(turned), "transB": int(trans_b)}
    extra["alpha"] = draw(st.sampled_from(ALPHAS))
    extra["beta"] = draw(st.sampled_from([1.0, 2.0, -4.0, 0.0]))
    inputs = [layer.input, layer.weight((4, 5) if trans_b else (5, 4), 0 if trans_b else 1, 4)]
    shape = draw(st.sampled_from([None, [], [1], [4], [1, 4], [1, 1], [rows, 1], [rows, 4]]))
    inputs += [] if shape is None else [layer.bias(shape)]
    mode = layer.options["gemm_per_channel"] = draw(st.sampled_from(["mul", "vector", "refuse"]))
    _, entry = layer.convert(layer.b.node("Gemm", inputs, **extra))
    by_rows = shape is not None and len(shape) == 2 and shape[0] == rows
    if by_rows:
        assert entry.reason == "bias-shape"
    elif layer.per_channel and mode == "refuse":
        assert entry.reason == "gemm-per-channel"
    else:
        assert entry.reason is None
        node = layer.node("Gemm")
        assert attributes(node) in ({}, {"transB": 0})
        biases = [t for t in layer.deploy.graph.initializer if t.name in node.input[2:]]
        assert [list(t.dims) for t in biases] == ([] if shape is None else [[4]])
        (packed,) = (t for t in layer.deploy.graph.initializer if t.data_type == TensorProto.UINT64)
        assert list(packed.dims) == [4 if layer.per_channel and mode == "vector" else 1]


@QUICK
@given(st.data())
def test_matmul(data: st.DataObject) -> None:
    """Two to four axes; the bias on either side of the Add, in each shape."""
    draw = data.draw
    layer = Layer(draw, tuple(ints(draw, draw(st.integers(1, 3)), 2, 3)) + (5,))
    inputs = [layer.input, layer.weight((5, 4), 1, 4)]
    result = layer.b.node("MatMul", inputs)
    shape = draw(st.sampled_from([None, [], [1], [4], [1, 4], [1] * len(layer.shape), [layer.shape[-2], 1]]))
    if shape is not None:
        terms = [result, layer.bias(shape)]
        result = layer.b.node("Add", terms if draw(st.booleans()) else terms[::-1])
    layer.options["gemm_per_channel"] = draw(st.sampled_from(["mul", "vector"]))
    _, entry = layer.convert(result)
    assert entry.reason is None
    kinds = [n.op_type for n in layer.deploy.graph.node]
    if shape in ([4], [1, 4]):
        assert kinds[:4] == ["AscendQuant", "MatMul", "Add", "AscendDequant"]
        bias = next(t for t in layer.deploy.graph.initializer if t.name == layer.node("Add").input[1])
        assert (list(bias.dims), bias.data_type) == ([4], TensorProto.INT32)
