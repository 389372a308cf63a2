"""Fake-quant nodes of foreign domains become QuantizeLinear (-> Clip) -> DequantizeLinear of the default domain.

QONNX Quant, BipolarQuant and Trunc, OpenVINO's FakeQuantize, mct_quantizers, and com.microsoft QuantizeLinear and
DequantizeLinear. All of them compute

    q = round(min(max(x / scale + zero_point, low), high)),    y = (q - zero_point) * scale

while QuantizeLinear adds the zero point after rounding: at an exact tie an odd zero point picks the other neighbour,
one step away. What no QuantizeLinear expresses (other rounding modes, a fractional zero point, more than 16 bits,
scales along several axes) becomes the float operators of the formula: correct, but no layer is quantized by it.

Sources: qonnx documentation of Quant, BipolarQuant and Trunc; OpenVINO operation set 1, FakeQuantize; mct_quantizers'
documented thresholds and ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.errors import FactorError, UnsupportedModelError
from amct_onnx.normalise.attributes import attribute_of
from amct_onnx.normalise.constants import ConstantEvaluator
from amct_onnx.normalise.graph_edit import GraphEditor, nodes_of
from amct_onnx.normalise.opset import opset_of
from amct_onnx.normalise.refused import note_refusal

Array = npt.NDArray[Any]

ROUNDING: dict[str, tuple[bool, float, str]] = {
    "ROUND": (False, 0.0, "Round"),
    "HALF_EVEN": (False, 0.0, "Round"),
    "CEIL": (False, 0.0, "Ceil"),
    "FLOOR": (False, 0.0, "Floor"),
    "UP": (True, 0.0, "Ceil"),
    "DOWN": (True, 0.0, "Floor"),
    "ROUND_TO_ZERO": (True, 0.0, "Floor"),
    "HALF_UP": (True, 0.5, "Floor"),
    "HALF_DOWN": (True, -0.5, "Ceil"),
}
"""Mode -> (on the magnitude, the sign put back after; what is added first; the operator that rounds)."""
NUMPY = {"Round": np.rint, "Ceil": np.ceil, "Floor": np.floor}
TYPES = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
"""Of a quantized activation, the first that holds the range and the zero point."""
ZERO_POINT_TOLERANCE = 1e-3
"""A zero point computed from a float32 range is integral to about 256 * 2^-24 * 2; farther off, zero is on no grid."""


@dataclass(frozen=True)
class Grid:
    """What a foreign node computes: q from ``scale`` and ``zero``, the result from ``out_scale`` and ``out_zero``.

    Attributes:
        scale, zero: broadcastable against the tensor; zero in float64.
        low, high: smallest and largest q.
        rounding: a key of ROUNDING.
        out_scale, out_zero: like scale and zero.
    """

    scale: Array
    zero: Array
    low: int
    high: int
    out_scale: Array
    out_zero: Array
    rounding: str = "ROUND"

    @property
    def same_out(self) -> bool:
        """Whether the result lies on the grid that was rounded to."""
        return np.array_equal(self.scale, self.out_scale) and np.array_equal(self.zero, self.out_zero)


def express_foreign_quantizers(model: ir.Model) -> None:
    """Rewrite every foreign fake-quant node in place.

    Raises:
        UnsupportedModelError: A node of these domains that is no integer quantizer, or none that Q/DQ can express.
        FactorError: A scale, zero point, range or bit width that is not constant or not usable.
    """
    nodes = nodes_of(model)
    if not any(n.domain in DOMAINS for n in nodes):
        return
    rewriter = _Rewriter(model)
    for node in nodes:
        rules = DOMAINS.get(node.domain)
        if rules is None:
            continue
        rule = rules.get(node.op_type)
        if rule is not None:
            rule(rewriter, node)
        elif node.domain != "com.microsoft":
            raise UnsupportedModelError(
                f"Node '{node.name}' is a {node.domain}::{node.op_type}, which is no integer quantization that "
                "QuantizeLinear can express. Export the model with integer quantizers, in QDQ format."
            )
    if rewriter.in_float and not any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in nodes_of(model)):
        name, why = rewriter.in_float[0]
        raise UnsupportedModelError(
            f"Node '{name}' {why}: it cannot become int8, and the same holds for every other quantizer of the model. "
            "Train with quantizers of 8 bits that round half to even and have integer zero points."
        )


class _Rewriter:
    def __init__(self, model: ir.Model) -> None:
        self.edit = GraphEditor(model)
        self.constants = ConstantEvaluator(opset_of(model))
        self.in_float: list[tuple[str, str]] = []

    # -- one rule for each operator --------------------------------------------------------------------------------

    def relabel(self, node: ir.Node) -> None:
        """com.microsoft QuantizeLinear and DequantizeLinear: the default domain's definition, for more types."""
        node.domain = ""

    def quant(self, node: ir.Node) -> None:
        """QONNX Quant, IntQuant: x, scale, zero point, bit width."""
        scale, zero = self._factor(node, 1), self._factor(node, 2)
        bits = self._bits(node, 3)
        signed, narrow = attribute_of(node, "signed", 1), attribute_of(node, "narrow", 0)
        if bits == 1 and signed:
            self._bipolar(node, scale)
            return
        low = (1 if narrow else 0) - 2 ** (bits - 1) if signed else 0
        high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - (1 if narrow else 0)
        mode = attribute_of(node, "rounding_mode", "ROUND").upper()
        if mode not in ROUNDING:
            raise UnsupportedModelError(f"Node '{node.name}': rounding mode {mode} is unknown. Use ROUND.")
        self._express(node, Grid(scale, zero, low, high, scale, zero, mode))

    def bipolar_quant(self, node: ir.Node) -> None:
        """QONNX BipolarQuant: x, scale."""
        self._bipolar(node, self._factor(node, 1))

    def trunc(self, node: ir.Node) -> None:
        """QONNX Trunc: x, scale, zero point, input bits, output bits; version 2 with output scale and zero point.

        Version 1 divides the integers by a power of two, rounds, and gives the result at the scale of the input.
        """
        scale, zero, at = self._factor(node, 1), self._factor(node, 2), node
        mode = attribute_of(node, "rounding_mode", "FLOOR").upper()
        if mode not in ROUNDING:
            raise UnsupportedModelError(f"Node '{node.name}': rounding mode {mode} is unknown. Use FLOOR.")
        value = self._op(at, "Div", _x(node), scale)
        value = self._op(at, "Add", value, zero)
        value = self.edit.node("Round", [value], at, "round_input")
        if len(node.inputs) > 5:
            out_scale = self._factor(node, 4, positive=True).astype(np.float32)
            step = np.exp2(np.rint(np.log2(out_scale.astype(np.float64) / scale)))
            bits = self._bits(node, 6)
            signed, narrow = attribute_of(node, "signed", 1), attribute_of(node, "narrow", 0)
            value = self._op(at, "Div", value, step)
            value = self._op(at, "Max", value, np.asarray((narrow - 2 ** (bits - 1)) if signed else 0))
            value = self._op(at, "Min", value, np.asarray(2 ** (bits - signed) - 1 - (0 if signed else narrow)))
            zero = zero / step
        else:
            out_scale = scale
            value = self._op(at, "Div", value, np.asarray(2.0 ** (self._bits(node, 3) - self._bits(node, 4))))
        value = self._round(at, value, mode)
        self._finish_float(node, value, out_scale, zero, "shifts integers")

    def fake_quantize(self, node: ir.Node) -> None:
        """OpenVINO FakeQuantize: x, input low and high, output low and high; levels."""
        levels = attribute_of(node, "levels", 0)
        if levels < 2:
            raise FactorError(f"Node '{node.name}': levels is {levels}. It must be at least 2: export the model again.")
        ranges = [self._factor(node, i, positive=False).astype(np.float64) for i in range(1, 5)]
        pairs = []
        for low, high in (ranges[:2], ranges[2:]):
            if not np.all(high > low):
                raise FactorError(f"Node '{node.name}': an empty range. Calibrate or train the quantizer again.")
            step = (high - low) / (levels - 1)
            pairs.append((step.astype(np.float32), _integral(-low / step)))
        (scale, zero), (out_scale, out_zero) = pairs
        self._express(node, Grid(scale, zero, 0, levels - 1, out_scale, out_zero))

    def mct_symmetric(self, node: ir.Node) -> None:
        """mct_quantizers Symmetric and POT (threshold a power of two): 2^bits levels over [-threshold, threshold)."""
        bits = attribute_of(node, "num_bits", 8)
        signed = 1 if node.op_type.startswith("Weights") else attribute_of(node, "signed", 1)
        threshold = self._mct_range(node, "threshold", 1)
        scale = (threshold / 2 ** (bits - signed)).astype(np.float32)
        zero = np.zeros(1)
        low, high = (-(2 ** (bits - 1)) if signed else 0), 2 ** (bits - signed) - 1
        self._express(node, Grid(scale, zero, low, high, scale, zero))

    def mct_uniform(self, node: ir.Node) -> None:
        """mct_quantizers Uniform: 2^bits levels over a range that is moved until zero is one of them."""
        bits = attribute_of(node, "num_bits", 8)
        low, high = self._mct_range(node, "min_range", 1), self._mct_range(node, "max_range", 2)
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        if not np.all(high > low):
            raise FactorError(f"Node '{node.name}': an empty range. Calibrate or train the quantizer again.")
        scale = (high - low) / (2**bits - 1)
        zero = np.rint(-low / scale)
        self._express(node, Grid(scale.astype(np.float32), zero, 0, 2**bits - 1, scale.astype(np.float32), zero))

    # -- what they share -------------------------------------------------------------------------------------------

    def _factor(self, node: ir.Node, index: int, positive: bool | None = None) -> Array:
        """A constant input; input 1 is a scale and must be positive, unless told otherwise."""
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is None or not self.constants.is_constant(value):
            raise FactorError(
                f"Node '{node.name}' ({node.op_type}): its input '{value.name if value else index}' is not constant. "
                "Export the model with fixed (frozen) quantizers."
            )
        array = np.asarray(self.constants.array(value))
        above_zero = index == 1 if positive is None else positive
        if not array.size or not np.all(np.isfinite(array)) or (above_zero and not np.all(array > 0)):
            raise FactorError(
                f"Node '{node.name}': '{value.name}' holds {array.reshape(-1)[:4].tolist()}; a scale must be positive "
                "and finite. Calibrate or train the quantizer again."
            )
        return array.astype(np.float32 if index == 1 else np.float64)

    def _bits(self, node: ir.Node, index: int) -> int:
        bits = np.unique(self._factor(node, index))
        if bits.size != 1 or bits[0] != np.rint(bits[0]) or not 1 <= bits[0] <= 32:
            raise UnsupportedModelError(
                f"Node '{node.name}': bit width {bits[:4].tolist()}. Use one integer bit width from 1 to 32."
            )
        return int(bits[0])

    def _mct_range(self, node: ir.Node, name: str, index: int) -> Array:
        """An activation's attribute, or a weight's input laid along its channel axis."""
        if name in node.attributes:
            attribute = node.attributes[name]
            if attribute.type not in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS) or attribute.is_ref():
                raise UnsupportedModelError(
                    f"Node '{node.name}' ({node.op_type}): attribute '{name}' holds no numbers. Export the model again."
                )
            return np.asarray(attribute.value, np.float64).reshape(-1)
        array = self._factor(node, index, positive=name == "threshold").astype(np.float64).reshape(-1)
        x = _x(node)
        if array.size == 1:
            return array
        rank = len(x.shape) if x.shape is not None else self.constants.array(x).ndim
        shape = [1] * rank
        shape[attribute_of(node, "channel_axis", 0)] = -1
        return array.reshape(shape)

    def _bipolar(self, node: ir.Node, scale: Array) -> None:
        """Scale where x >= 0, else -scale."""
        x, zero = _x(node), np.zeros(1)
        if self.constants.is_constant(x) and not self._obstacle(x, scale, zero):
            signs = np.where(self.constants.array(x) >= 0, 1, -1).astype(np.int8)
            inputs, attributes = self._factors(node, x, scale, zero, ir.DataType.INT8)
            self._dequantize(node, self.edit.constant(f"{x.name}/signs", signs), inputs, attributes)
            return
        negative = self._op(node, "Less", x, np.zeros(()))
        ones = [self._constant(node, "sign", np.asarray(sign)) for sign in (-1.0, 1.0)]
        value = self.edit.node("Where", [negative, *ones], node, "sign")
        self._finish_float(node, value, scale, zero, "has two levels and none for zero")

    def _express(self, node: ir.Node, grid: Grid) -> None:
        x = _x(node)
        why = self._obstacle(x, grid.scale, grid.zero, grid.out_scale, grid.out_zero)
        if not why and self.constants.is_constant(x):
            self._fold(node, x, grid)
            return
        if not why and ROUNDING[grid.rounding] != ROUNDING["ROUND"]:
            why = f"rounds with mode {grid.rounding}"
        if not why and not grid.same_out:
            why = "has different input and output ranges"
        grid = grid if why else _toward_int8(grid)
        kind = None if why else _type_for(grid)
        if kind is None:
            self._chain(node, x, grid, why or f"needs more than 16 bits for its integers {grid.low}..{grid.high}")
            return
        inputs, attributes = self._factors(node, x, grid.scale, grid.zero, kind)
        value = self.edit.node("QuantizeLinear", [x, *inputs], node, "quantize", attributes)
        value.type, value.shape = ir.TensorType(kind), x.shape
        if (grid.low, grid.high) != _limits(kind):
            bounds = [
                self.edit.constant(f"{node.name}/{label}", np.asarray(limit, kind.numpy()))
                for label, limit in (("low", grid.low), ("high", grid.high))
            ]
            value = self.edit.node("Clip", [value, *bounds], node, "clip", like=value)
        self._dequantize(node, value, inputs, attributes)

    def _fold(self, node: ir.Node, x: ir.Value, grid: Grid) -> None:
        """A constant becomes integers behind a DequantizeLinear.

        They are stored without zero point as int8 wherever they fit, because Ascend takes symmetric weights only.
        """
        zero = grid.out_zero
        shape = self._shape(x)
        if any(not _spreads(factor.shape, shape) for factor in (grid.scale, grid.zero, grid.out_scale, grid.out_zero)):
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): its factors of shape {list(grid.scale.shape)} do not fit tensor "
                f"'{x.name}' of shape {list(shape)}. Export the model again."
            )

        def integers() -> Array:
            return _integers(self.constants.array(x), grid)

        tensor: Array | ir.TensorProtocol
        stored = np.zeros(1)
        if grid.low - zero.max() >= -128 and grid.high - zero.min() <= 127:
            # read only when it is needed: the range alone says that int8 holds it
            shape = self._shape(x)
            tensor = ir.LazyTensor(
                lambda: ir.tensor((integers() - zero).astype(np.int8)), dtype=ir.DataType.INT8, shape=ir.Shape(shape)
            )
            kind = ir.DataType.INT8
        else:
            content = integers()
            centred = content - zero
            narrow = next((t for t in TYPES[:2] if _holds(t, grid.low, grid.high, zero)), None)
            if centred.size and -128 <= centred.min() and centred.max() <= 127:
                kind, content = ir.DataType.INT8, centred
            elif narrow is not None:
                kind, stored = narrow, zero
            else:
                kind, content = ir.DataType.INT32, centred
            tensor = ir.tensor(content.astype(kind.numpy()))
        inputs, attributes = self._factors(node, x, grid.out_scale, stored, kind)
        self._dequantize(node, self.edit.constant(f"{x.name}/integers", tensor), inputs, attributes)

    def _dequantize(self, node: ir.Node, value: ir.Value, inputs: list[ir.Value], attributes: list[ir.Attr]) -> None:
        result = self.edit.node("DequantizeLinear", [value, *inputs], node, attributes=attributes, like=_x(node))
        self.edit.replace(node, [result])

    def _chain(self, node: ir.Node, x: ir.Value, grid: Grid, why: str) -> None:
        """The float operators of the formula."""
        value = self._op(node, "Div", x, grid.scale)
        value = self._op(node, "Add", value, grid.zero)
        value = self._op(node, "Max", value, np.asarray(grid.low))
        value = self._op(node, "Min", value, np.asarray(grid.high))
        value = self._round(node, value, grid.rounding)
        self._finish_float(node, value, grid.out_scale, grid.out_zero, why)

    def _finish_float(self, node: ir.Node, value: ir.Value, scale: Array, zero: Array, why: str) -> None:
        value = self._op(node, "Sub", value, zero)
        value = self.edit.node("Mul", [value, self._constant(node, "scale", scale)], node, like=_x(node))
        if not self.constants.is_constant(_x(node)):
            self.in_float.append((node.name or "", why))
            for use in node.outputs[0].uses():
                note_refusal(
                    use.node,
                    "quantizer-not-integer",
                    f"the quantizer '{node.name}' ({node.op_type}) at its input {why}",
                    "Train with quantizers of 8 bits that round half to even and have an integer zero point.",
                )
        self.edit.replace(node, [value])

    def _round(self, node: ir.Node, value: ir.Value, mode: str) -> ir.Value:
        magnitude, first, op_type = ROUNDING[mode]
        sign = self.edit.node("Sign", [value], node, "sign") if magnitude else None
        value = self.edit.node("Abs", [value], node, "abs") if magnitude else value
        value = self._op(node, "Add", value, np.asarray(first))
        value = self.edit.node(op_type, [value], node, op_type.lower())
        return value if sign is None else self.edit.node("Mul", [value, sign], node, "signed")

    def _op(self, node: ir.Node, op_type: str, value: ir.Value, factor: Array) -> ir.Value:
        """A binary operator with a constant; adding or subtracting nothing is left out."""
        if op_type in ("Add", "Sub") and not np.any(factor):
            return value
        label = op_type.lower()
        return self.edit.node(op_type, [value, self._constant(node, f"{label}_by", factor)], node, label)

    def _constant(self, node: ir.Node, label: str, array: Array) -> ir.Value:
        dtype = np.float16 if _x(node).dtype == ir.DataType.FLOAT16 else np.float32
        return self.edit.constant(f"{node.name}/{label}", array.astype(dtype))

    def _factors(
        self, node: ir.Node, x: ir.Value, scale: Array, zero: Array, kind: ir.DataType
    ) -> tuple[list[ir.Value], list[ir.Attr]]:
        """Scale and zero point of a Q and DQ, scalars or flat, and the axis."""
        try:
            spread = np.broadcast_shapes(scale.shape, zero.shape)
        except ValueError:
            spread = ()
        size = max(scale.size, zero.size)
        if not {scale.size, zero.size} <= {1, size} or max(spread, default=1) != size:
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): a scale of shape {list(scale.shape)} and a zero point of shape "
                f"{list(zero.shape)} are no factors of one axis. Export the model again."
            )
        flat = [np.broadcast_to(a.reshape(-1), (size,)).reshape((size,) if size > 1 else ()) for a in (scale, zero)]
        inputs = [self._constant(node, "scale", flat[0])]
        if kind != ir.DataType.INT32:
            inputs.append(self.edit.constant(f"{node.name}/zero_point", flat[1].astype(kind.numpy())))
        if size == 1:
            return inputs, []
        axis = next(i for i, n in enumerate(spread) if n > 1) + self._rank(x, len(spread)) - len(spread)
        return inputs, [ir.AttrInt64("axis", axis)]

    def _obstacle(self, x: ir.Value, *factors: Array) -> str:
        """Why no Q/DQ has these factors, or nothing."""
        try:
            spread = np.broadcast_shapes(*(f.shape for f in factors))
        except ValueError:
            return f"has a scale of shape {list(factors[0].shape)} and a zero point of shape {list(factors[1].shape)}"
        if sum(n > 1 for n in spread) > 1 or len(spread) > self._rank(x, len(spread)):
            return f"has scales of shape {list(spread)}, which is more than one axis"
        for zero in factors[1::2]:
            if np.any(zero != np.rint(zero)):
                return f"has the zero point {float(zero[zero != np.rint(zero)].reshape(-1)[0]):.6g}, no integer"
        return ""

    def _rank(self, x: ir.Value, default: int) -> int:
        if x.shape is None and not self.constants.is_constant(x):
            return default
        return len(x.shape) if x.shape is not None else len(self._shape(x))

    def _shape(self, x: ir.Value) -> tuple[int, ...]:
        tensor = self.constants.tensor(x)
        return tuple(tensor.shape.numpy()) if tensor is not None else self.constants.array(x).shape


def _x(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise UnsupportedModelError(f"Node '{node.name}' ({node.op_type}) has no input. Export the model again.")
    return value


def _spreads(factor: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether broadcasting leaves the tensor its shape."""
    return len(factor) <= len(shape) and all(f in (1, n) for f, n in zip(factor[::-1], shape[::-1], strict=False))


def _limits(kind: ir.DataType) -> tuple[int, int]:
    info = np.iinfo(kind.numpy())
    return int(info.min), int(info.max)


def _holds(kind: ir.DataType, low: float, high: float, zero: Array) -> bool:
    first, last = _limits(kind)
    return bool(first <= min(low, zero.min()) and max(high, zero.max()) <= last)


def _type_for(grid: Grid) -> ir.DataType | None:
    return next((t for t in TYPES if _holds(t, grid.low, grid.high, grid.zero)), None)


def _toward_int8(grid: Grid) -> Grid:
    """The same grid counted from zero, where int8 holds that: what reads a symmetric quantizer is simplest."""
    zero = int(grid.zero.reshape(-1)[0])
    if np.any(grid.zero != zero) or grid.low - zero < -128 or grid.high - zero > 127:
        return grid
    none = np.zeros_like(grid.zero)
    return replace(grid, low=grid.low - zero, high=grid.high - zero, zero=none, out_zero=none)


def _integral(zero: Array) -> Array:
    """Zero points that miss an integer by float32 rounding only."""
    near = np.rint(zero)
    return np.where(np.abs(zero - near) < ZERO_POINT_TOLERANCE, near, zero)


def _integers(x: Array, grid: Grid) -> Array:
    """The q of the module's formula: the division in float32, the rest exact."""
    ratio = (x.astype(np.float32) / grid.scale).astype(np.float64) + grid.zero
    ratio = np.clip(ratio, grid.low, grid.high)
    magnitude, first, op_type = ROUNDING[grid.rounding]
    if magnitude:
        return np.asarray(np.sign(ratio) * NUMPY[op_type](np.abs(ratio) + first))
    return np.asarray(NUMPY[op_type](ratio + first))


Rule = Callable[[_Rewriter, ir.Node], None]
QONNX: dict[str, Rule] = {
    "Quant": _Rewriter.quant,
    "IntQuant": _Rewriter.quant,
    "BipolarQuant": _Rewriter.bipolar_quant,
    "Trunc": _Rewriter.trunc,
}
MCT: dict[str, Rule] = {
    f"{target}{method}Quantizer": rule
    for target in ("Activation", "Weights")
    for method, rule in (
        ("POT", _Rewriter.mct_symmetric),
        ("Symmetric", _Rewriter.mct_symmetric),
        ("Uniform", _Rewriter.mct_uniform),
    )
}
DOMAINS: dict[str, dict[str, Rule]] = {
    "qonnx.custom_op.general": QONNX,
    "onnx.brevitas": QONNX,
    "finn.custom_op.general": QONNX,
    "org.openvinotoolkit": {"FakeQuantize": _Rewriter.fake_quantize},
    "mct_quantizers": MCT,
    "com.microsoft": {"QuantizeLinear": _Rewriter.relabel, "DequantizeLinear": _Rewriter.relabel},
}
