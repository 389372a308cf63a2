"""Lower a deploy graph to standard operators, which onnxruntime runs: a view, nothing is written.

int8 tensors travel as centred float32 (see ``operators``), int32 accumulators as float32 where the certificate of
``facts`` proves it exact and as int32 otherwise. An operator that is not known to keep these meanings gets the original
integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass, TopologicalSortPass

from amct_onnx.arithmetic import INT8_MAX, INT8_MIN
from amct_onnx.device.arithmetic import unpack_deq_scale
from amct_onnx.device.facts import (
    EXACT_IN_FLOAT32,
    LayerFacts,
    WeightSums,
    largest_sum,
    out_of_specification,
    weight_sums,
    worst_accumulator,
)
from amct_onnx.device.operators import ANTIQUANTIZE, DEQUANTIZE, QUANTIZE, Emitter, Quantized
from amct_onnx.device.products import Product
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.normalise.constants import ConstantEvaluator
from amct_onnx.normalise.opset import opset_of

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
AVERAGES = frozenset({"AveragePool", "GlobalAveragePool"})
MOVES = frozenset(
    "DepthToSpace Expand Flatten Gather GatherElements GatherND Identity MaxPool GlobalMaxPool Reshape Slice "
    "SpaceToDepth Split Squeeze Tile Transpose Unsqueeze".split()
)
"""Operators that only select elements of their first input; float32 in place of int8 changes nothing."""
ROLL_BACK_CHANNELS = 16
"""Up to so many input channels GE runs a Conv in float16 with its weight de-quantized."""
OLDEST_OPSET = 11
"""Clip with three inputs, Round."""
ASSUMED_OPSET = 13
"""Of a file that lost the import of the default domain, as the vendor's tool may write it."""
GE_FLOAT, GE_FLOAT16 = 0, 1
"""GE's DataType numbers that AscendDequant and AscendAntiQuant carry in ``dtype``."""


@dataclass
class _Layer:
    """An integer layer while its facts are being gathered."""

    node: ir.Node
    input: _Int8 | None
    sums: WeightSums | None
    bias: npt.NDArray[np.int64]
    kernel: str
    rank: int
    warnings: list[str]
    accumulator: _Accumulator | None = None
    dequantizer: str = ""
    deq_scale: tuple[float, float] | None = None
    output: ir.Value | None = None

    def bound(self) -> int | None:
        """Largest partial sum in the centred form."""
        offset = self.input.offset if self.input is not None else 0
        return None if self.sums is None else largest_sum(self.sums, offset, self.bias)


@dataclass
class _Int8:
    """A lowered int8 tensor: float32 that holds q - offset."""

    value: ir.Value
    offset: int
    quantizer: ir.Node | None = None
    moved: tuple[str, ...] = ()
    integer: ir.Value | None = None


@dataclass
class _Accumulator:
    """A lowered int32 tensor.

    Attributes:
        value: float32 when ``in_float`` (integers that it holds exactly), else int32.
        axis: of the output channels, None when they may have moved.
        integral: False behind an average.
    """

    value: ir.Value
    in_float: bool
    layer: _Layer | None
    axis: int | None
    integral: bool = True
    integer: ir.Value | None = None


@dataclass(frozen=True)
class Tap:
    """Names of the extra outputs that show one layer: int8 input, int32 accumulator, float output."""

    name: str
    op_type: str
    dequantizer: str
    input: str
    accumulator: str
    output: str


@dataclass(frozen=True)
class Counters:
    """Names of the extra outputs that tell about one layer; layers may share those of their AscendQuant.

    Attributes:
        name: of the layer.
        tie, kept: bool tensors of its AscendQuant: exactly between two integers, not clipped. "" when its input is no
            AscendQuant's. Counting them in numpy is faster than an int32 ReduceSum, and exact beyond 2^24.
        highest, lowest: scalars, of its accumulator.
    """

    name: str
    tie: str
    kept: str
    highest: str
    lowest: str


@dataclass(frozen=True)
class Lowered:
    """A deploy model in standard operators.

    Attributes:
        model: runs in onnxruntime; its first outputs are the source's, then come those of taps and counters.
        outputs: names of the source's outputs.
        layers: static facts in graph order.
        warnings: of the model as a whole.
        taps, counters: the extra outputs, when they were asked for; layers inside If or Loop bodies have none.
    """

    model: ir.Model
    outputs: tuple[str, ...]
    layers: tuple[LayerFacts, ...]
    warnings: tuple[str, ...]
    taps: tuple[Tap, ...] = ()
    counters: tuple[Counters, ...] = ()


def lower(
    model: ir.Model, product: Product, *, taps: bool = False, counters: bool = False, integer_kernels: bool = False
) -> Lowered:
    """Lower a deploy model; the given model is used up.

    Args:
        model: with AscendQuant, AscendDequant, AscendAntiQuant in the default domain.
        product: whose arithmetic the three operators follow.
        taps: let every layer's int8 input, int32 accumulator and output be outputs as well.
        counters: let counts of ties and saturation and the accumulator's extremes be outputs as well.
        integer_kernels: use ConvInteger and MatMulInteger also where float32 is proven exact (a yardstick).

    Raises:
        UnsupportedModelError: Something in it that ATC refuses or that has no public arithmetic.
    """
    if model.functions:
        model = InlinePass()(model).model
    try:
        TopologicalSortPass()(model)
    except ValueError as error:
        raise UnsupportedModelError(
            f"The graph cannot be sorted ({error}). It holds a cycle; write it again."
        ) from error
    lowering = _Lowering(model, product, integer_kernels)
    return lowering.run(taps, counters)


class _Lowering:
    def __init__(self, model: ir.Model, product: Product, integer_kernels: bool) -> None:
        self._model = model
        self._graph = model.graph
        self._product = product
        self._integer_kernels = integer_kernels
        self._warnings: list[str] = []
        if not {"", "ai.onnx"} & set(model.opset_imports):
            model.opset_imports[""] = ASSUMED_OPSET
            self._warnings.append(
                f"The file imports no opset of the default domain, ATC will refuse it; opset {ASSUMED_OPSET} is "
                "assumed."
            )
        opset = opset_of(model)
        if opset < OLDEST_OPSET:
            raise UnsupportedModelError(
                f"The model has opset {opset}; the simulation needs {OLDEST_OPSET}, as ATC does. Export it again."
            )
        self._constants = ConstantEvaluator(opset)
        self._emit = Emitter(self._graph)
        self._has_float16 = _holds_float16(self._graph)
        self._int8: dict[ir.Value, _Int8] = {}
        self._int32: dict[ir.Value, _Accumulator] = {}
        self._weights: dict[tuple[int, ir.Value], ir.Value] = {}
        self._quantized: dict[ir.Node, Quantized] = {}
        self._layers: list[_Layer] = []
        self._replaced: list[ir.Node] = []

    def run(self, taps: bool, counters: bool) -> Lowered:
        outputs = tuple(v.name or "" for v in self._graph.outputs)
        self._walk(self._graph)
        for node in reversed(self._replaced):
            if node.graph is not None and not any(v.uses() or v.is_graph_output() for v in node.outputs):
                node.graph.remove(node, safe=True)
        made_counters = self._add_counters() if counters else ()
        made_taps = self._add_taps() if taps else ()
        RemoveUnusedNodesPass()(self._model)
        facts = tuple(self._facts(layer) for layer in self._layers)
        return Lowered(self._model, outputs, facts, tuple(self._warnings), made_taps, made_counters)

    # -- the walk ------------------------------------------------------------------------------------------------------

    def _walk(self, graph: ir.Graph) -> None:
        for node in list(graph):
            # shapes and types of the source may be stale, and are others here; onnxruntime infers them
            for value in node.outputs:
                if not value.is_graph_output():
                    value.type = value.shape = None
            self._emit.before(node)
            if node.domain in ("", "ai.onnx"):
                self._lower_node(node)
            else:
                self._integers_for(node)
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    self._walk(attribute.as_graph())
                elif attribute.type == ir.AttributeType.GRAPHS:
                    for body in attribute.as_graphs():
                        self._walk(body)
        for index, value in enumerate(graph.outputs):
            integer = self._as_integer(value)
            if integer is value:
                continue
            if integer.is_graph_output() or integer.graph is not graph:
                assert integer.producer() is not None
                last = graph[-1]
                self._emit.after(last)
                integer = self._emit.node("Identity", [integer])
            name = value.name
            value.name = self._emit.unique(f"{name}:lowered")
            integer.name, integer.shape = name, value.shape
            integer.type = ir.TensorType(ir.DataType.INT8 if value in self._int8 else ir.DataType.INT32)
            if value.producer() is not None:
                value.type = value.shape = None
            graph.outputs[index] = integer

    def _lower_node(self, node: ir.Node) -> None:
        op_type = node.op_type
        first = node.inputs[0] if node.inputs else None
        held = self._int8.get(first) if first is not None else None
        accumulator = self._int32.get(first) if first is not None else None
        if op_type == "AscendQuant":
            self._quant(node)
        elif op_type == "AscendDequant":
            self._dequant(node)
        elif op_type == "AscendAntiQuant":
            self._antiquant(node)
        elif op_type.startswith("Ascend"):
            raise UnsupportedModelError(
                f"Node '{node.name}': {op_type} has no place in a deploy model before ATC and is not simulated. "
                "Convert the QAT model again."
            )
        elif op_type in LAYERS and (held is not None or self._is_int8(node, 1)):
            self._layer(node)
        elif op_type in AVERAGES and held is not None:
            self._average(node, held)
        elif op_type in MOVES and held is not None:
            self._move(node, [0], held)
        elif op_type == "Resize" and held is not None and _text(node, "mode", "nearest") == "nearest":
            self._move(node, [0], held)
        elif op_type == "Pad" and held is not None:
            self._pad(node, held)
        elif op_type == "Concat" and held is not None and self._equal_offsets(node):
            self._move(node, range(len(node.inputs)), held)
        elif op_type == "Add" and any(v in self._int32 for v in node.inputs):
            self._add(node)
        elif op_type in MOVES and accumulator is not None:
            node.replace_input_with(0, accumulator.value)
            axis = accumulator.axis if op_type == "Identity" else None
            self._int32[node.outputs[0]] = replace(accumulator, value=node.outputs[0], axis=axis, integer=None)
        else:
            self._integers_for(node)

    def _integers_for(self, node: ir.Node) -> None:
        """Give an ordinary operator the original integers."""
        for index, value in enumerate(node.inputs):
            if value is not None:
                integer = self._as_integer(value)
                if integer is not value:
                    node.replace_input_with(index, integer)

    def _as_integer(self, value: ir.Value) -> ir.Value:
        """The int8 or int32 tensor; the value itself when it was never lowered."""
        if value in self._int8:
            return self._integers_of(self._int8[value])
        return self._integers_of(self._int32[value]) if value in self._int32 else value

    def _integers_of(self, held: _Int8 | _Accumulator) -> ir.Value:
        """The int8 or int32 form, made once, behind the node that makes the float32 form."""
        if isinstance(held, _Accumulator):
            if not held.in_float:
                return held.value
            if not held.integral:
                raise UnsupportedModelError(
                    f"Tensor '{held.value.name}': the integers of an int8 average are not public; only AscendDequant "
                    "can read it here. Keep this layer in float."
                )
        if held.integer is None:
            producer = held.value.producer()
            assert producer is not None
            self._emit.after(producer)
            whole = held.value
            if isinstance(held, _Int8) and held.offset:
                whole = self._emit.node("Add", [whole, self._emit.number(held.offset)])
            held.integer = self._emit.cast(whole, ir.DataType.INT8 if isinstance(held, _Int8) else ir.DataType.INT32)
        return held.integer

    def _held_int8(self, value: ir.Value, node: ir.Node) -> _Int8:
        """The centred form of an int8 tensor; one that no AscendQuant made has offset 0."""
        if value in self._int8:
            return self._int8[value]
        # not remembered: another reader may stand in another If body
        self._emit.before(node)
        return _Int8(self._emit.cast(value, ir.DataType.FLOAT), 0, integer=value)

    def _is_int8(self, node: ir.Node, index: int) -> bool:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return False
        if value in self._int8:
            return True
        if not self._constants.is_constant(value):
            return value.dtype == ir.DataType.INT8
        tensor = self._constants.tensor(value)
        kind = tensor.dtype if tensor is not None else ir.DataType.from_numpy(self._constants.array(value).dtype)
        return bool(kind == ir.DataType.INT8)

    # -- the three operators -------------------------------------------------------------------------------------------

    def _quant(self, node: ir.Node) -> None:
        kind = _text(node, "dst_type", "INT8").rstrip()
        if kind in ("INT4", "INT16"):
            raise UnsupportedModelError(
                f"Node '{node.name}': dst_type {kind} is not simulated, only INT8 is. Quantize the layer to 8 bits."
            )
        if _text(node, "round_mode", "Round") != "Round":
            raise UnsupportedModelError(
                f"Node '{node.name}': round_mode '{_text(node, 'round_mode', '')}' is not simulated, only Round is."
            )
        scale, offset = _factors(node)
        value = self._source(node)
        made = QUANTIZE[self._product.quantize](
            self._emit, self._as_float32(value), scale, offset, _flag(node, "sqrt_mode")
        )
        self._quantized[node] = made
        self._int8[node.outputs[0]] = _Int8(made.centred, offset, node)
        self._replaced.append(node)

    def _source(self, node: ir.Node) -> ir.Value:
        value = node.inputs[0] if node.inputs else None
        if value is None:
            raise UnsupportedModelError(f"Node '{node.name}' ({node.op_type}) has no input. Write the model again.")
        return value

    def _as_float32(self, value: ir.Value) -> ir.Value:
        """A float16 tensor is cast up, which is exact; one of unknown type as well in models that hold any float16."""
        if value.dtype == ir.DataType.FLOAT or (value.dtype is None and not self._has_float16):
            return value
        return self._emit.cast(value, ir.DataType.FLOAT)

    def _dequant(self, node: ir.Node) -> None:
        value, parameter = self._source(node), node.inputs[1] if len(node.inputs) > 1 else None
        if parameter is None or not self._constants.is_constant(parameter):
            raise UnsupportedModelError(
                f"Node '{node.name}' (AscendDequant): its deq_scale must be an initializer; ATC refuses anything else."
            )
        packed = self._constants.array(parameter)
        if packed.ndim != 1 or packed.dtype not in (np.uint64, np.float16, np.float32) or not packed.size:
            raise UnsupportedModelError(
                f"Node '{node.name}' (AscendDequant): its deq_scale is {packed.dtype} of shape {list(packed.shape)}; "
                "ATC takes uint64 of shape [1] or [channels]."
            )
        scale, shift, offset_w = unpack_deq_scale(packed)
        accumulator = self._int32.get(value)
        if accumulator is None:
            accumulator = _Accumulator(value, False, None, None)
        layer = accumulator.layer
        if shift.any() or offset_w.any():
            field_name = "a shift N (GE's int16 scheme)" if shift.any() else "offset_w"
            text = (
                f"AscendDequant '{node.name}' carries {field_name}, which is not simulated: the scale alone is applied"
            )
            (layer.warnings if layer is not None else self._warnings).append(text)
        if scale.size > 1:
            scale = self._along_channels(scale, accumulator, node)
        source = accumulator.value
        if not accumulator.in_float:
            source = self._emit.cast(source, ir.DataType.FLOAT)
        result = DEQUANTIZE[self._product.dequantize](
            self._emit, source, scale, _flag(node, "sqrt_mode"), _flag(node, "relu_flag")
        )
        result = self._float_result(node, result)
        if layer is not None and layer.output is None:
            layer.dequantizer, layer.output, layer.accumulator = node.name or "", result, accumulator
            layer.deq_scale = (float(scale.min()), float(scale.max()))

    def _along_channels(
        self, scale: npt.NDArray[np.float32], accumulator: _Accumulator, node: ir.Node
    ) -> npt.NDArray[np.float32]:
        axis, layer = accumulator.axis, accumulator.layer
        if axis is None or layer is None:
            raise UnsupportedModelError(
                f"Node '{node.name}' (AscendDequant): {scale.size} scales, but no Conv, ConvTranspose, Gemm or MatMul "
                "stands right before it that says which axis they belong to. Put it directly behind its layer."
            )
        if layer.sums is not None and layer.sums.positive.size not in (1, scale.size):
            raise UnsupportedModelError(
                f"Node '{node.name}' (AscendDequant): {scale.size} scales for {layer.sums.positive.size} output "
                f"channels of '{layer.node.name}'. Write the model again."
            )
        if axis == -1:
            return scale
        return scale.reshape([-1] + [1] * (layer.rank - 2))

    def _float_result(self, node: ir.Node, result: ir.Value) -> ir.Value:
        kind = _integer(node, "dtype", GE_FLOAT)
        if kind not in (GE_FLOAT, GE_FLOAT16):
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): dtype {kind} is not simulated, only 0 (float) and 1 (float16) "
                "are."
            )
        if kind == GE_FLOAT16:
            result = self._emit.cast(result, ir.DataType.FLOAT16)
        old = node.outputs[0]
        if old.is_graph_output():
            name = old.name
            old.name = self._emit.unique(f"{name}:replaced")
            result.name, result.type, result.shape = name, old.type, old.shape
        elif kind == GE_FLOAT:
            result.type = ir.TensorType(ir.DataType.FLOAT)
        else:
            result.type = ir.TensorType(ir.DataType.FLOAT16)
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        self._replaced.append(node)
        return result

    def _antiquant(self, node: ir.Node) -> None:
        held = self._held_int8(self._source(node), node)
        scale, offset = _factors(node)
        value = held.value
        if offset != held.offset:
            value = self._emit.node("Add", [value, self._emit.number(held.offset - offset)])
        result = ANTIQUANTIZE[self._product.antiquantize](self._emit, value, scale, _flag(node, "sqrt_mode"))
        self._float_result(node, result)

    # -- what stands between -------------------------------------------------------------------------------------------

    def _move(self, node: ir.Node, indices: Iterable[int], held: _Int8) -> None:
        for index in indices:
            value = node.inputs[index]
            assert value is not None
            node.replace_input_with(index, self._int8[value].value)
        outputs = node.outputs if node.op_type == "Split" else node.outputs[:1]
        for output in outputs:
            moved = (*held.moved, node.name or node.op_type)
            self._int8[output] = _Int8(output, held.offset, held.quantizer, moved)

    def _equal_offsets(self, node: ir.Node) -> bool:
        offsets = {self._int8[v].offset if v in self._int8 else None for v in node.inputs if v is not None}
        return len(offsets) == 1 and None not in offsets

    def _pad(self, node: ir.Node, held: _Int8) -> None:
        """The border holds what the node says as an int8, not the offset: only layers pad with that."""
        if _text(node, "mode", "constant") == "constant":
            fill = node.inputs[2] if len(node.inputs) > 2 else None
            if fill is not None and not self._constants.is_constant(fill):
                self._integers_for(node)
                return
            number = 0 if fill is None else int(self._constants.array(fill).reshape(-1)[0])
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            node.replace_input_with(2, self._emit.number(number - held.offset))
        self._move(node, [0], held)

    def _add(self, node: ir.Node) -> None:
        """The bias of a MatMul: an int32 constant behind its accumulator, in float32 while that stays exact."""
        index = 0 if node.inputs[0] in self._int32 else 1
        value, other = node.inputs[index], node.inputs[1 - index]
        assert value is not None
        held = self._int32[value]
        out = node.outputs[0]
        if other is not None and self._constants.is_constant(other) and held.layer is not None and held.integral:
            bias = self._constants.array(other)
            if bias.dtype != np.int32:
                raise UnsupportedModelError(
                    f"Node '{node.name}': adds {bias.dtype} to the int32 accumulator of '{held.layer.node.name}'. "
                    "Write the model again."
                )
            wide = np.abs(bias.astype(np.int64))
            # its own channels when it is one row of them, else its largest element for all
            channels = held.layer.sums.positive.size if held.layer.sums is not None else 0
            row = held.axis == -1 and wide.size == channels == wide.shape[-1:][0] if wide.ndim else False
            added = wide.reshape(-1) if row else wide.max(initial=0).reshape(1)
            held.layer.bias = held.layer.bias + added
            bound = held.layer.bound()
            if held.in_float and bound is not None and bound <= EXACT_IN_FLOAT32:
                node.replace_input_with(index, held.value)
                node.replace_input_with(1 - index, self._emit.constant(bias.astype(np.float32)))
                self._int32[out] = replace(held, value=out, integer=None)
                return
        self._integers_for(node)
        self._int32[out] = _Accumulator(out, False, held.layer, held.axis)

    def _average(self, node: ir.Node, held: _Int8) -> None:
        node.replace_input_with(0, held.value)
        text = "how a device averages int8 is not public: the average of the integers is taken in float32"
        layer = _Layer(node, held, None, np.zeros(1, np.int64), "average", 0, [text])
        self._layers.append(layer)
        self._int32[node.outputs[0]] = _Accumulator(node.outputs[0], True, layer, None, integral=False)

    # -- integer layers ------------------------------------------------------------------------------------------------

    def _layer(self, node: ir.Node) -> None:
        value, weight = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
        if value is None or weight is None:
            raise UnsupportedModelError(f"Node '{node.name}' ({node.op_type}) lacks an input. Write the model again.")
        if not self._is_int8(node, 1):
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): reads int8 but its weight '{weight.name}' is not int8. Write "
                "the model again."
            )
        if node.op_type == "Gemm" and (_float(node, "alpha", 1.0) != 1.0 or _float(node, "beta", 1.0) != 1.0):
            raise UnsupportedModelError(
                f"Node '{node.name}': a Gemm on integers needs alpha = beta = 1; ATC would multiply the int32 result. "
                "Convert the model again."
            )
        held = self._held_int8(value, node)
        constant = weight not in self._int8 and self._constants.is_constant(weight)
        sums, bias, rank, array = None, np.zeros(1, np.int64), 2, None
        bias_array = self._bias(node)
        if bias_array is not None:
            bias = np.abs(bias_array.astype(np.int64)).reshape(-1)
        if constant:
            array = self._constants.array(weight)
            rank = array.ndim
            sums = weight_sums(
                node.op_type, array, _integer(node, "group", 1), transposed=bool(_integer(node, "transB", 0))
            )
            if bias.size not in (1, sums.positive.size):
                bias = bias.max(initial=0).reshape(1)
        elif node.op_type in ("Conv", "ConvTranspose"):
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): its weight '{weight.name}' is not constant, ATC needs an int8 "
                "initializer. Convert the model again."
            )
        layer = _Layer(node, held, sums, bias, "float32", rank, self._layer_warnings(node, held))
        self._layers.append(layer)
        self._emit.before(node)
        bound = layer.bound()
        parts = self._parts(node, array, held.offset) if array is not None else None
        if self._integer_kernels and node.op_type != "ConvTranspose":
            bound = parts = None
        result, in_float = node.outputs[0], False
        if bound is not None and bound <= EXACT_IN_FLOAT32:
            self._float_kernel(node, held, weight, bias_array)
            in_float = True
        elif array is not None and parts is not None:
            layer.kernel = "split"
            result = self._split_kernel(node, held, array, parts, bias_array)
        elif node.op_type != "ConvTranspose":
            layer.kernel = "integer"
            result = self._integer_kernel(node, held, weight, bias_array, rank)
        else:
            raise UnsupportedModelError(
                f"Node '{node.name}': the accumulator of a single input channel may exceed 2^24, which no ONNX "
                "operator computes exactly for ConvTranspose. Use a smaller kernel."
            )
        axis = 1 if node.op_type in ("Conv", "ConvTranspose") else -1
        made = _Accumulator(result, in_float, layer, axis)
        layer.accumulator = made
        self._int32[node.outputs[0]] = made

    def _layer_warnings(self, node: ir.Node, held: _Int8) -> list[str]:
        found = []
        if held.moved and held.offset:
            found.append(
                f"'{held.moved[-1]}' stands between AscendQuant and the layer: by public sources ATC then does not "
                f"fold the offset {held.offset}; the simulation does"
            )
        if held.quantizer is None:
            found.append("its int8 input comes from no AscendQuant; its offset is taken as 0")
        return found

    def _bias(self, node: ir.Node) -> npt.NDArray[Any] | None:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        if value is None:
            return None
        if not self._constants.is_constant(value):
            raise UnsupportedModelError(
                f"Node '{node.name}': its bias '{value.name}' is not constant. Use an int32 initializer."
            )
        array = self._constants.array(value)
        if array.dtype != np.int32:
            raise UnsupportedModelError(
                f"Node '{node.name}': its bias '{value.name}' is {array.dtype}, a layer on int8 needs int32. Convert "
                "the model again."
            )
        return array

    def _float_kernel(self, node: ir.Node, held: _Int8, weight: ir.Value, bias: npt.NDArray[Any] | None) -> None:
        key = (id(node.graph), weight)
        if key not in self._weights:
            # cast while running: int8 weights keep the session as small as the fake-quant model's
            self._weights[key] = self._emit.cast(weight, ir.DataType.FLOAT)
        node.replace_input_with(0, held.value)
        node.replace_input_with(1, self._weights[key])
        if bias is not None:
            node.replace_input_with(2, self._emit.constant(bias.astype(np.float32)))

    def _integer_kernel(
        self, node: ir.Node, held: _Int8, weight: ir.Value, bias: npt.NDArray[Any] | None, rank: int
    ) -> ir.Value:
        """ConvInteger or MatMulInteger on int8 x int8 with the offset as zero point, then the int32 bias.

        ConvInteger pads with the zero point. Kernels of mixed signs saturate on some CPUs.
        """
        zero, q = self._emit.constant(np.int8(held.offset)), self._integers_of(held)
        self._emit.before(node)
        if node.op_type == "Conv":
            result = self._emit.node("ConvInteger", [q, weight, zero], node.attributes.values())
            if bias is not None:
                bias = bias.reshape([-1] + [1] * (rank - 2))
        else:
            factors = [zero]
            if weight in self._int8:
                other = self._int8[weight]
                weight = self._integers_of(other)
                self._emit.before(node)
                factors.append(self._emit.constant(np.int8(other.offset)))
            swap = [ir.AttrInt64s("perm", [1, 0])]
            if _integer(node, "transA", 0):
                q = self._emit.node("Transpose", [q], swap)
            if _integer(node, "transB", 0):
                weight = self._emit.node("Transpose", [weight], swap)
            result = self._emit.node("MatMulInteger", [q, weight, *factors])
        if bias is not None:
            result = self._emit.node("Add", [result, self._emit.constant(bias)])
        self._replaced.append(node)
        return result

    def _parts(self, node: ir.Node, weight: npt.NDArray[Any], offset: int) -> int | None:
        """Into how many parts of its input channels a layer has to be split so that float32 holds each part's sums."""
        if _integer(node, "transA", 0):
            return None
        group, transposed = _integer(node, "group", 1), bool(_integer(node, "transB", 0))
        for count in (1, 2, 3, 4, 6, 8):
            slices = _channel_slices(node.op_type, weight, group, transposed, count)
            sums = (weight_sums(node.op_type, part, group, transposed) for _, part in slices)
            if all(largest_sum(s, offset, np.zeros(1, np.int64)) <= EXACT_IN_FLOAT32 for s in sums):
                return count
        return None

    def _split_kernel(
        self, node: ir.Node, held: _Int8, weight: npt.NDArray[Any], parts: int, bias: npt.NDArray[Any] | None
    ) -> ir.Value:
        """The layer on parts of its input channels, each proven exact in float32, summed in int32.

        Costs about as much as the layer in one piece, ConvInteger several times that; for ConvTranspose there is none.
        """
        convolution = node.op_type in ("Conv", "ConvTranspose")
        slices = _channel_slices(
            node.op_type, weight, _integer(node, "group", 1), bool(_integer(node, "transB", 0)), parts
        )
        total: ir.Value | None = None
        for channels, part in slices:
            source = held.value
            if parts > 1:
                axis = [ir.AttrInt64("axis", 1 if convolution else -1)]
                source = self._emit.node("Gather", [source, self._emit.constant(channels)], axis)
            factor = self._emit.cast(self._emit.constant(np.ascontiguousarray(part)), ir.DataType.FLOAT)
            result = self._emit.node(node.op_type, [source, factor], node.attributes.values())
            result = self._emit.cast(result, ir.DataType.INT32)
            total = result if total is None else self._emit.node("Add", [total, result])
        assert total is not None
        if bias is not None:
            shape = [-1] + [1] * (weight.ndim - 2) if convolution else bias.shape
            total = self._emit.node("Add", [total, self._emit.constant(bias.reshape(shape))])
        self._replaced.append(node)
        return total

    # -- facts and extra outputs ---------------------------------------------------------------------------------------

    def _facts(self, layer: _Layer) -> LayerFacts:
        held = layer.input
        quantizer = held.quantizer if held is not None else None
        scale, offset = _factors(quantizer) if quantizer is not None else (None, None)
        worst = None if layer.sums is None else worst_accumulator(layer.sums, offset or 0, layer.bias)
        warnings = [*layer.warnings, *out_of_specification(worst, scale, layer.deq_scale)]
        return LayerFacts(
            name=layer.node.name or "",
            op_type=layer.node.op_type,
            quantizer=(quantizer.name or "") if quantizer is not None else "",
            dequantizer=layer.dequantizer,
            scale=scale,
            offset=offset,
            kernel=layer.kernel,
            largest_sum=layer.bound(),
            worst_accumulator=worst,
            deq_scale=layer.deq_scale,
            warnings=tuple(warnings),
        )

    def _output(self, value: ir.Value) -> str:
        if value.is_graph_output():
            self._emit.at_end()
            value = self._emit.node("Identity", [value])
        self._graph.outputs.append(value)
        return value.name or ""

    def _in_main_graph(self, layer: _Layer) -> bool:
        made = layer.accumulator
        return made is not None and made.value.graph is self._graph

    def _add_taps(self) -> tuple[Tap, ...]:
        found = []
        for layer in self._layers:
            held, made = layer.input, layer.accumulator
            if held is None or made is None or layer.output is None or not self._in_main_graph(layer):
                continue
            names = [
                self._output(value)
                for value in (
                    self._integers_of(held),
                    made.value if not made.integral else self._integers_of(made),
                    layer.output,
                )
            ]
            found.append(Tap(layer.node.name or "", layer.node.op_type, layer.dequantizer, *names))
        return tuple(found)

    def _add_counters(self) -> tuple[Counters, ...]:
        of_quantizer: dict[ir.Node, list[str]] = {}
        found = []
        for layer in self._layers:
            held, made = layer.input, layer.accumulator
            if held is None or made is None or not self._in_main_graph(layer):
                continue
            counts = ["", ""]
            quantized = self._quantized.get(held.quantizer) if held.quantizer is not None else None
            if held.quantizer is not None and quantized is not None:
                if held.quantizer not in of_quantizer:
                    of_quantizer[held.quantizer] = [self._output(v) for v in self._count(quantized)]
                counts = of_quantizer[held.quantizer]
            producer = made.value.producer()
            assert producer is not None
            self._emit.after(producer)
            none = [ir.AttrInt64("keepdims", 0)]
            extremes = [self._output(self._emit.node(op, [made.value], none)) for op in ("ReduceMax", "ReduceMin")]
            found.append(Counters(layer.node.name or "", *counts, *extremes))
        return tuple(found)

    def _count(self, quantized: Quantized) -> list[ir.Value]:
        """[is an exact tie, was not clipped], right behind the quantizer so that its stages need not be kept."""
        emit, producer = self._emit, quantized.centred.producer()
        assert producer is not None
        emit.after(producer)
        distance = emit.node("Abs", [emit.node("Sub", [quantized.exact, quantized.rounded])])
        tie = emit.node("Equal", [distance, emit.number(0.5)])
        return [tie, emit.node("Equal", [quantized.rounded, quantized.clipped])]


def _holds_float16(graph: ir.Graph) -> bool:
    """Whether any input, constant or operator may bring in a float16 tensor."""
    if any(v.dtype == ir.DataType.FLOAT16 for v in [*graph.inputs, *graph.initializers.values()]):
        return True
    for node in ir.traversal.RecursiveGraphIterator(graph):
        wanted = GE_FLOAT16 if node.op_type.startswith("Ascend") else int(ir.DataType.FLOAT16)
        if wanted in (_integer(node, "to", -1), _integer(node, "dtype", -1)):
            return True
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == ir.DataType.FLOAT16:
                return True
            if attribute.type == ir.AttributeType.GRAPH:
                constants = attribute.as_graph().initializers.values()
                if any(v.dtype == ir.DataType.FLOAT16 for v in constants):
                    return True
    return False


def _channel_slices(
    op_type: str, weight: npt.NDArray[Any], group: int, transposed: bool, count: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
    """(input channels, their weights) of each of ``count`` parts; a part takes the same share of every group."""
    if op_type == "Conv":
        axis = 1
    elif op_type == "ConvTranspose":
        weight = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
        axis = 1
    else:
        axis = 1 if transposed else max(weight.ndim - 2, 0)
    size = weight.shape[axis]
    for share in np.array_split(np.arange(size), min(count, size)):
        part = np.take(weight, share, axis=axis)
        if op_type == "ConvTranspose":
            part = part.reshape(-1, *part.shape[2:])
        yield (np.arange(group)[:, None] * size + share).reshape(-1), part


def _factors(node: ir.Node) -> tuple[float, int]:
    """Attributes scale and offset; ATC reads 0 for what is missing or no FLOAT."""
    numbers = []
    for name in ("scale", "offset"):
        attribute = node.attributes.get(name)
        if attribute is None or attribute.type != ir.AttributeType.FLOAT:
            raise UnsupportedModelError(
                f"Node '{node.name}' ({node.op_type}): attribute '{name}' is missing or no FLOAT, ATC would read 0. "
                "Write it as a FLOAT."
            )
        numbers.append(attribute.as_float())
    scale, offset = numbers
    if not (np.isfinite(scale) and scale > 0):
        raise UnsupportedModelError(f"Node '{node.name}' ({node.op_type}): scale {scale} is not positive and finite.")
    if not (float(offset).is_integer() and INT8_MIN <= offset <= INT8_MAX):
        raise UnsupportedModelError(
            f"Node '{node.name}' ({node.op_type}): offset {offset} is no integer in [-128, 127], as ATC needs it."
        )
    return scale, int(offset)


def _text(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return attribute.as_string() if attribute is not None and attribute.type == ir.AttributeType.STRING else default


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None and attribute.type == ir.AttributeType.INT else default


def _float(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return attribute.as_float() if attribute is not None and attribute.type == ir.AttributeType.FLOAT else default


def _flag(node: ir.Node, name: str) -> bool:
    return bool(_integer(node, name, 0))
