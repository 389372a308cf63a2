"""The result of lowering: a model of standard operators, its facts, and the names of the extra outputs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from amct_onnx.device.facts import LayerFacts


@dataclass(frozen=True)
class Tap:
    """Names of the extra outputs that show one layer: int8 input, int32 accumulator, float output.

    ``producer`` is the node that makes the input, "" when it has no name.
    """

    name: str
    op_type: str
    producer: str
    dequantizer: str
    input: str
    accumulator: str
    output: str


@dataclass(frozen=True)
class Counters:
    """Names of the extra outputs that tell about one layer; layers may share those of their AscendQuant.

    Attributes:
        name: name of the layer.
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
        warnings: warnings of the model as a whole.
        taps, counters: the extra outputs, when they were asked for; layers inside If or Loop bodies have none.
    """

    model: ir.Model
    outputs: tuple[str, ...]
    layers: tuple[LayerFacts, ...]
    warnings: tuple[str, ...]
    taps: tuple[Tap, ...] = ()
    counters: tuple[Counters, ...] = ()
