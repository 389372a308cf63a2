"""State of lowering that all steps share: the graph, and what each lowered tensor holds.

int8 tensors travel as centred float32 (see ``operators``), int32 accumulators as float32 where the certificate of
``facts`` proves it exact and as int32 otherwise. An operator that is not known to keep these meanings gets the original
integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.common.arrays import Int64
from amct_onnx.device.facts import Kernel, LayerFacts, WeightSums, largest_sum, out_of_specification, worst_accumulator
from amct_onnx.device.lowering.editor import LoweringEditor
from amct_onnx.device.lowering.node_attributes import quantizer_factors
from amct_onnx.device.lowering.operators import Quantized
from amct_onnx.device.profiles import Profile
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.float16_rounding import holds_float16
from amct_onnx.graph.opset import opset_of

OLDEST_OPSET = 11
"""Clip with three inputs, Round."""
ASSUMED_OPSET = 13
"""Opset of a file without an import of the default domain, as the vendor's tool may write it."""
GE_FLOAT, GE_FLOAT16 = 0, 1
"""GE's DataType numbers that AscendDequant and AscendAntiQuant carry in ``dtype``."""


@dataclass
class Int8Tensor:
    """A lowered int8 tensor.

    Attributes:
        value: float32 that holds q - offset.
        offset: offset of the AscendQuant that made it; 0 when another node did.
        quantizer: that AscendQuant.
        moved: names of the nodes that moved its elements since.
        integer: the int8 tensor, once somebody asked for it.
    """

    value: ir.Value
    offset: int
    quantizer: ir.Node | None = None
    moved: tuple[str, ...] = ()
    integer: ir.Value | None = None


@dataclass
class Accumulator:
    """A lowered int32 tensor.

    Attributes:
        value: float32 when ``in_float`` (integers that it holds exactly), else int32.
        in_float: see ``value``.
        layer: that made it.
        axis: axis of the output channels, None when they may have moved.
        integral: False behind an average.
        integer: the int32 tensor, once somebody asked for it.
    """

    value: ir.Value
    in_float: bool
    layer: IntegerLayer | None
    axis: int | None
    integral: bool = True
    integer: ir.Value | None = None


@dataclass
class IntegerLayer:
    """An integer layer while its facts are being gathered.

    Attributes:
        node: Conv, ConvTranspose, Gemm, MatMul or an average.
        input: its int8 input.
        sums: sums of its weights, None when both operands are activations.
        bias: absolute values, int64 of shape [channels] or [1].
        kernel: see ``LayerFacts``.
        rank: rank of its weight.
        warnings: about it.
        accumulator: what AscendDequant reads, or its own result.
        dequantizer, deq_scale, output: name, smallest and largest scale, and result of its AscendDequant.
    """

    node: ir.Node
    input: Int8Tensor
    sums: WeightSums | None
    bias: Int64
    kernel: Kernel
    rank: int
    warnings: list[str]
    accumulator: Accumulator | None = None
    dequantizer: str = ""
    deq_scale: tuple[float, float] | None = None
    output: ir.Value | None = None

    def bound(self) -> int | None:
        """Largest partial sum in the centred form."""
        return None if self.sums is None else largest_sum(self.sums, self.input.offset, self.bias)

    def facts(self) -> LayerFacts:
        """Its static facts."""
        quantizer = self.input.quantizer
        scale, offset = quantizer_factors(quantizer) if quantizer is not None else (None, None)
        worst = None if self.sums is None else worst_accumulator(self.sums, offset or 0, self.bias)
        return LayerFacts(
            name=self.node.name or "",
            op_type=self.node.op_type,
            quantizer=(quantizer.name or "") if quantizer is not None else "",
            dequantizer=self.dequantizer,
            scale=scale,
            offset=offset,
            kernel=self.kernel,
            largest_sum=self.bound(),
            worst_accumulator=worst,
            deq_scale=self.deq_scale,
            warnings=(*self.warnings, *out_of_specification(worst, scale, self.deq_scale)),
        )


class LoweringState:
    """One model on its way to standard operators.

    Args:
        model: changed in place.
        profile: whose arithmetic the three operators follow.
        integer_kernels: never use float32 for a layer that has an integer kernel.

    Raises:
        UnsupportedModelError: The opset is too old.
    """

    def __init__(self, model: ir.Model, profile: Profile, integer_kernels: bool) -> None:
        self.model = model
        self.graph = model.graph
        self.profile = profile
        self.integer_kernels = integer_kernels
        self.warnings: list[str] = []
        if not {"", "ai.onnx"} & set(model.opset_imports):
            model.opset_imports[""] = ASSUMED_OPSET
            self.warnings.append(
                f"The file imports no opset of the default domain, ATC will refuse it; opset {ASSUMED_OPSET} is "
                "assumed."
            )
        opset = opset_of(model)
        if opset < OLDEST_OPSET:
            raise UnsupportedModelError(
                f"The model has opset {opset}; the simulation needs {OLDEST_OPSET}, as ATC does. Export it again."
            )
        self.constants = ConstantEvaluator(opset)
        self.edit = LoweringEditor(model)
        self.int8: dict[ir.Value, Int8Tensor] = {}
        self.int32: dict[ir.Value, Accumulator] = {}
        self.float_weights: dict[tuple[int, ir.Value], ir.Value] = {}
        """The float32 form of a weight, by graph."""
        self.quantized: dict[ir.Node, Quantized] = {}
        """The stages of each AscendQuant."""
        self.layers: list[IntegerLayer] = []
        self.replaced: list[ir.Node] = []
        """Nodes whose results other nodes compute now."""
        self.has_float16 = holds_float16(model) or any(
            n.op_type.startswith("Ascend") and attribute(n, "dtype", -1) == GE_FLOAT16 for n in nodes_of(model)
        )

    def give_integers(self, node: ir.Node) -> None:
        """Let an ordinary operator read the original integers."""
        for index, value in enumerate(node.inputs):
            if value is not None:
                integer = self.as_integer(value)
                if integer is not value:
                    node.replace_input_with(index, integer)

    def as_integer(self, value: ir.Value) -> ir.Value:
        """The int8 or int32 tensor; the value itself when it was never lowered."""
        if value in self.int8:
            return self.integers_of(self.int8[value])
        return self.integers_of(self.int32[value]) if value in self.int32 else value

    def integers_of(self, lowered: Int8Tensor | Accumulator) -> ir.Value:
        """The int8 or int32 form, made once, behind the node that computes the float32 form."""
        if isinstance(lowered, Accumulator):
            if not lowered.in_float:
                return lowered.value
            if not lowered.integral:
                raise UnsupportedModelError(
                    f"Tensor '{lowered.value.name}': the integers of an int8 average are not public; only "
                    "AscendDequant can read it here. Keep this layer in float."
                )
        if lowered.integer is None:
            producer = lowered.value.producer()
            assert producer is not None
            self.edit.after(producer)
            whole = lowered.value
            if isinstance(lowered, Int8Tensor) and lowered.offset:
                whole = self.edit.node("Add", [whole, self.edit.number(lowered.offset)])
            kind = ir.DataType.INT8 if isinstance(lowered, Int8Tensor) else ir.DataType.INT32
            lowered.integer = self.edit.cast(whole, kind)
        return lowered.integer

    def held_int8(self, value: ir.Value, node: ir.Node) -> Int8Tensor:
        """The centred form of an int8 tensor that a node reads; one that no AscendQuant made has offset 0."""
        if value in self.int8:
            return self.int8[value]
        # not cached: another reader may be in another If body
        self.edit.before(node)
        return Int8Tensor(self.edit.cast(value, ir.DataType.FLOAT), 0, integer=value)

    def is_int8(self, node: ir.Node, index: int) -> bool:
        """Whether an input of the node is known to be int8."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return False
        if value in self.int8:
            return True
        if not self.constants.is_constant(value):
            return value.dtype == ir.DataType.INT8
        tensor = self.constants.tensor(value)
        kind = tensor.dtype if tensor is not None else ir.DataType.from_numpy(self.constants.array(value).dtype)
        return bool(kind == ir.DataType.INT8)

    def as_float32(self, value: ir.Value) -> ir.Value:
        """A float16 tensor is cast up, which is exact; one of unknown type as well in models that hold any float16."""
        if value.dtype == ir.DataType.FLOAT or (value.dtype is None and not self.has_float16):
            return value
        return self.edit.cast(value, ir.DataType.FLOAT)
