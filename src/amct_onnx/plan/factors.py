"""The parts of a plan: quantizers, weights and sites as frozen values, without references to the graph's nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.common.arithmetic import reciprocal
from amct_onnx.common.arrays import Float32, Float64, Int8
from amct_onnx.common.small_floats import SmallFloat
from amct_onnx.plan.ledger import FloatOperator, LayerEntry

ANTI_QUANT = ".anti_quant"
"""The end of the name of the node that stands for a pair: the vendor's filter of nodes knows it."""


@dataclass(frozen=True)
class Blocks:
    """One scale for each block of elements along an axis.

    Attributes:
        shape: shape of the scales: that of the tensor, but along the axis the number of blocks.
        size: elements of a block; the last one may have fewer.
    """

    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Quantizer:
    """An activation quantizer; integers of unsigned types are already shifted into the signed range.

    Attributes:
        scale: float32, shape [] or [channels]; of blocks in row-major order.
        zero_point: int64, shape of scale.
        low, high: smallest and largest integer that the quantizer yields.
        axis: channel axis, or that of the blocks, when scale is not a scalar.
        bits: 8 or 16.
        shift: what was subtracted from the source's integers (128 for uint8, 0 for int8).
        float_type: element type of the float tensor, FLOAT or FLOAT16.
        blocks: layout of the scales when there is one per block.
        small_float: the type to whose numbers it rounds; None for integers.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    low: int
    high: int
    axis: int | None = None
    bits: int = 8
    shift: int = 0
    float_type: ir.DataType = ir.DataType.FLOAT
    blocks: Blocks | None = None
    small_float: SmallFloat | None = None

    @property
    def per_tensor_int8(self) -> bool:
        """Whether one AscendQuant can hold it. Its scale attribute is the reciprocal, which must be finite."""
        supported_type = self.float_type in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
        integers = self.axis is None and self.bits == 8 and self.small_float is None
        return integers and supported_type and math.isfinite(reciprocal(self.scale_d))

    def same_grid(self, other: Quantizer) -> bool:
        """Whether both yield the same integers for every float."""
        mine = (self.scale, self.zero_point, self.low, self.high, self.axis, self.blocks, self.small_float)
        theirs = (other.scale, other.zero_point, other.low, other.high, other.axis, other.blocks, other.small_float)
        return mine == theirs

    @property
    def shifted(self) -> Quantizer:
        """What the output models have of it: they do not tell uint8 from int8 in the source."""
        return replace(self, shift=0)

    @property
    def scale_d(self) -> np.float32:
        """The one scale of a per-tensor quantizer."""
        return np.float32(self.scale[0])

    @property
    def offset_d(self) -> int:
        """The one zero point of a per-tensor quantizer, in int8 range."""
        return self.zero_point[0]


@dataclass(frozen=True)
class Weight:
    """A weight, read and quantized only when ``integers`` is called.

    Attributes:
        integers: returns int8, in the layout that the layer of the output models takes.
        shape: shape of the integers.
        scale: float32 [1] or [output channels].
        name: initializer name in the source.
        key: equal for two layers whose integers are the same tensor.
        blocks: yields the same integers in consecutive parts, so that they are never in memory as a whole; None when
            the layout of the output differs from the source's.
    """

    integers: Callable[[], Int8]
    shape: tuple[int, ...]
    scale: Float32
    name: str
    key: tuple[object, ...]
    blocks: Callable[[], Iterator[Int8]] | None = None


@dataclass(frozen=True)
class Activation:
    """An input of a layer that is quantized while the model runs.

    Attributes:
        source: name of the float tensor that is quantized.
        quantizer: its factors.
        read_scale: scale that the layer takes its integers to have: that of the quantizer, unless a quantizer of
            another scale stands in front of the source's and makes the same integers.
    """

    source: str
    quantizer: Quantizer
    read_scale: float


Reader = tuple[str, int]
"""Name of a node, and the index of one of its inputs."""


@dataclass(frozen=True)
class Site:
    """A layer that becomes int8, with everything the emitters need.

    Attributes:
        node: name of the layer.
        activations: the inputs that are quantized, by their index: one, or both of a MatMul of two activations.
        weight: weight of the layer; None when the second input is an activation.
        deq_scale: float32 [1] or [output channels], before the split into a common scale and ratios.
        bias: int32 [output channels], or None.
        float_bias: float32 [output channels] that is added behind the dequantization, because int32 does not hold the
            bias; else None.
        bias_name: name of the bias initializer.
        absorbed: names of the nodes behind the layer that are folded into bias and deq_scale, in order.
        split_scale: True when AscendDequant gets one scale and a Mul the per-channel ratio.
        transpose_input: whether the activation is transposed first (Gemm transA).
        float_type: element type of the layer's result, FLOAT or FLOAT16.
        attributes: attributes of the layer in the output models.
        as_2d: whether the deploy model holds a 1-D convolution as a 2-D one of height 1.
        detail: text for the ledger beside the figures.
        bias_error: error of rounding the bias to integers, float64 [output channels] in the bias's unit; None without a
            bias.
        output: name of the float tensor that the layer and what it absorbed make.
        output_scale: scale of the quantizer that reads that tensor next; None when none does.
        terms: of a MatMul of two activations, how many products make one element; None when the model does not say.
        input_sum: what one unit of the sum of the input's integers adds to the result, float32 [1] or [output
            channels]: it makes up for an asymmetric weight that was shifted into int8. None for a symmetric one.
    """

    node: str
    activations: tuple[Activation, ...]
    weight: Weight | None
    deq_scale: Float32
    bias: npt.NDArray[np.int32] | None
    float_bias: Float32 | None
    bias_name: str
    absorbed: tuple[str, ...]
    split_scale: bool
    transpose_input: bool
    float_type: ir.DataType
    attributes: tuple[ir.Attr, ...]
    as_2d: bool = False
    detail: str = ""
    bias_error: Float64 | None = None
    output: str = ""
    output_scale: float | None = None
    terms: int | None = None
    input_sum: Float32 | None = None

    @property
    def quantizer(self) -> Quantizer:
        """That of the first input."""
        return self.activations[0].quantizer

    @property
    def scale_w(self) -> Float32:
        """Scales of the second input's integers, float32 [1] or [output channels]."""
        if self.weight is None:
            return np.asarray([self.activations[1].read_scale], np.float32)
        return self.weight.scale

    @property
    def rank(self) -> int:
        """Axes of the second input that hold its channels, the summed elements and the kernel."""
        return 2 if self.weight is None else len(self.weight.shape)

    @property
    def quantized(self) -> dict[Reader, Quantizer]:
        """The quantizer of each input that has one."""
        return {(self.node, index): a.quantizer for index, a in enumerate(self.activations)}


class FloatReader(NamedTuple):
    """Operators of one type that read the floats of a pair.

    Attributes:
        op_type: as in the user's file; empty for a graph output.
        kind: "layer" for one that stays float, "quantizer" for one of other factors, "mover" for one that hands the
            elements on to such quantizers alone, "operator" or "output".
    """

    op_type: str
    kind: str


class AlikePair(NamedTuple):
    """A pair that is left out because another one rounds alike, and that comes back without that one.

    Attributes:
        maker: see ``Pair``.
        readers: operators that read its floats; of one in front of the other, what hands its elements on to that.
        for_a_layer: whether an int8 layer needs the quantizer of its tensor.
        outputs: see ``Pair``; several DequantizeLinear may read its integers.
    """

    maker: str
    readers: tuple[str, ...]
    for_a_layer: bool
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A DequantizeLinear that belongs to no site.

    Attributes:
        output: name of its output tensor. A pair at a place where the source has none makes a tensor of this new name,
            which the readers of its source read instead.
        source: name of the float tensor that is quantized.
        quantizer: factors of the quantization; None when the value is constant and simply computed.
        elided: True when removing the pair changes no bit: its readers read the source.
        read_scale: scale that its integers are read with; None for the quantizer's own.
        names: under which the user may know it, the best one first.
        dropped: True when its readers get unrounded numbers.
        clip: bounds of the Clip that stays of a dropped one, infinity for none; None without a Clip.
        shared: True when an int8 layer reads the integers of its AscendQuant.
        merged: True when another pair stands for it: that one has its readers.
        maker: what makes the tensor that is quantized: "an int8 Conv", "Add of an int8 layer" (which holds its bias),
            "a graph input" or an operator.
        before: pairs whose elements reach this one, and that are left out because it rounds alike.
        behind: pairs that its elements reach, and that are left out because it has rounded alike.
        for_a_layer: whether an int8 layer reads its floats behind data movement, without a quantizer of its own.
        readers: what reads the floats of the pair; movements in front of such layers are none.
    """

    output: str
    source: str
    quantizer: Quantizer | None
    elided: bool = False
    read_scale: float | None = None
    names: tuple[str, ...] = ()
    dropped: bool = False
    clip: tuple[float, float] | None = None
    shared: bool = False
    merged: bool = False
    maker: str = ""
    before: tuple[AlikePair, ...] = ()
    behind: tuple[AlikePair, ...] = ()
    for_a_layer: bool = False
    readers: tuple[FloatReader, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The verdict on every candidate layer and every remaining quantizer."""

    sites: tuple[Site, ...]
    entries: tuple[LayerEntry, ...]
    pairs: tuple[Pair, ...]
    outputs: tuple[tuple[str, str, Quantizer], ...]
    """(QuantizeLinear's output, its source, factors) of each QuantizeLinear that is a graph output."""
    constants: dict[str, Callable[[], npt.NDArray[np.generic]]]
    """Dequantized weights of layers that stay float."""
    warnings: tuple[str, ...]
    moved: tuple[Pair, ...] = ()
    """Pairs at places where the source has none."""
    float_operators: tuple[FloatOperator, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    """Name of an entry that is a part of one of the user's nodes -> name of its node in the outputs."""
