"""Writes small Q/DQ models node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from support.tensor_protos import tensor_proto

Array = np.ndarray
IR_VERSION = 8
IR_VERSION_21 = 10


class QdqBuilder:
    """A graph under construction; each method returns the name of the tensor that it made."""

    def __init__(self, opset: int = 13) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def fresh(self, prefix: str) -> str:
        """A name that no other tensor has."""
        self._count += 1
        return f"{prefix}_{self._count}"

    def input(self, name: str, shape: Sequence[int | str] | None) -> str:
        """A float graph input; of unknown rank without a shape."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, name: str, elem_type: int = TensorProto.FLOAT, shape: Sequence[int | str] | None = None) -> str:
        """Make a tensor a graph output."""
        self.outputs.append(helper.make_tensor_value_info(name, elem_type, shape))
        return name

    def constant(self, array: Array, name: str | None = None, *, as_node: bool = False) -> str:
        """An initializer, or a Constant node."""
        name = name or self.fresh("constant")
        if as_node:
            tensor = tensor_proto(array, "")
            self.nodes.append(helper.make_node("Constant", [], [name], f"{name}_node", value=tensor))
        else:
            self.initializers.append(tensor_proto(array, name))
        return name

    def node(
        self, op_type: str, inputs: Sequence[str], name: str | None = None, output: str | None = None, **extra: Any
    ) -> str:
        """A node with one output."""
        name = self.fresh(op_type) if name is None else name
        output = output or self.fresh("t")
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **extra))
        return output

    def activation(
        self,
        source: str,
        scale: float | Array,
        zero_point: Array | None,
        clip: tuple[int, int] | None = None,
    ) -> str:
        """source -> Q (-> Clip) -> DQ; an absent zero point means uint8, 0."""
        factors = [self.constant(np.asarray(scale, np.float32))]
        if zero_point is not None:
            factors.append(self.constant(zero_point))
        value = self.node("QuantizeLinear", [source, *factors])
        if clip is not None:
            kind = np.uint8 if zero_point is None else zero_point.dtype
            bounds = [self.constant(np.asarray(b, kind)) for b in clip]
            value = self.node("Clip", [value, *bounds])
        return self.node("DequantizeLinear", [value, *factors])

    def weight(
        self,
        array: Array | str,
        scale: float | Array,
        axis: int | None = None,
        zero_point: Array | None = None,
        *,
        quantize: bool = False,
    ) -> str:
        """Integers -> DQ, or floats -> Q -> DQ; ``array`` may name an existing initializer."""
        value = array if isinstance(array, str) else self.constant(array, self.fresh("w"))
        factors = [self.constant(np.asarray(scale, np.float32))]
        if zero_point is not None:
            factors.append(self.constant(zero_point))
        extra = {} if axis is None else {"axis": axis}
        if quantize:
            value = self.node("QuantizeLinear", [value, *factors], **extra)
        return self.node("DequantizeLinear", [value, *factors], **extra)

    def model(self, *, extra_opsets: Sequence[tuple[str, int]] = ()) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, v) for d, v in extra_opsets)]
        version = IR_VERSION_21 if self.opset >= 21 else IR_VERSION
        return helper.make_model(graph, opset_imports=opsets, ir_version=version)

    def save(self, folder: Path, **extra: Any) -> Path:
        """Write source.onnx into a folder."""
        path = folder / "source.onnx"
        onnx.save(self.model(**extra), str(path))
        return path
