"""The shapes of tensors when each free axis of the inputs has a given length.

onnx's inference follows the numbers that a graph computes of sizes through a few operators only. A Div ends it, as
exporters write it for a split in halves or for windows. Here sizes are numbers, and so is what is computed of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import bodies_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op

Axis = str | tuple[str, int]
"""A free axis: its name; of one without, the input's name and its number."""
Sizes = tuple[int, ...]
MAX_SIZES = 1000
"""Elements of a constant that may decide a shape."""
BUDGET = 1 << 20
"""Bytes of all that is computed of sizes."""
DECIDING = (ir.DataType.INT32, ir.DataType.INT64)
"""Types of inputs whose numbers decide shapes; beside the scales of a Resize."""


def free_axes(model: ir.Model) -> list[Axis]:
    """The free axes of the graph's inputs, each once."""
    return list(dict.fromkeys(a for v in model.graph.inputs for a in _axes(v) if not isinstance(a, int)))


def sized_shapes(model: ir.Model, lengths: Mapping[Axis, int]) -> dict[str, Sizes]:
    """The shapes of the inputs and of what the nodes of the main graph make; what does not follow is left out.

    Args:
        model: without functions, its nodes sorted; it is not changed.
        lengths: of each free axis.

    Returns:
        Name of a tensor -> its sizes, each above 0.
    """
    sized = _Sized(model, lengths)
    for node in model.graph:
        sized.add(node)
    return sized.found


class _Sized:
    """The types that are known so far, and the numbers that were computed of them."""

    def __init__(self, model: ir.Model, lengths: Mapping[Axis, int]) -> None:
        self.found: dict[str, Sizes] = {}
        self._opset = opset_of(model)
        self._imports = [onnx.helper.make_opsetid("", self._opset)]
        self._constants = ConstantEvaluator(self._opset, BUDGET)
        self._types: dict[ir.Value | None, onnx.TypeProto] = {}
        for value in model.graph.inputs:
            axes = _axes(value)
            if value.dtype is not None and value.shape is not None:
                self._keep(value, value.dtype, [a if isinstance(a, int) else lengths[a] for a in axes])

    def add(self, node: ir.Node) -> None:
        """A node behind those whose results it reads."""
        for value, kind in self._results(node):
            dims = kind.tensor_type.shape.dim if kind.tensor_type.HasField("shape") else None
            if dims is not None and all(d.HasField("dim_value") for d in dims):
                self._keep(value, ir.DataType(kind.tensor_type.elem_type), [d.dim_value for d in dims])
        if node.op_type in ("Shape", "Size") and not node.domain:
            self._measure(node)

    def _keep(self, value: ir.Value, dtype: ir.DataType, sizes: list[int]) -> None:
        if all(size > 0 for size in sizes):
            self.found[value.name or ""] = tuple(sizes)
            self._types[value] = onnx.helper.make_tensor_type_proto(int(dtype), sizes)

    def _measure(self, node: ir.Node) -> None:
        """What Shape and Size make is known with the sizes of their input."""
        source = node.inputs[0]
        kind = None if source is None else self._type(source)
        if kind is None:
            return
        sizes = [d.dim_value for d in kind.tensor_type.shape.dim]
        if node.op_type == "Size":
            self._constants.give(node.outputs[0], np.asarray(np.prod(sizes, dtype=np.int64)))
            return
        start, end = attribute(node, "start", 0), attribute(node, "end", len(sizes))
        self._constants.give(node.outputs[0], np.asarray(sizes[start:end], np.int64))

    def _results(self, node: ir.Node) -> Iterator[tuple[ir.Value, onnx.TypeProto]]:
        """The results of a node of which anything follows."""
        declared = [_declared(v) for v in node.outputs]
        if all(kind is not None for kind in declared):
            yield from ((v, k) for v, k in zip(node.outputs, declared, strict=True) if k is not None)
        elif not node.domain and not bodies_of(node):
            inferred = self._inferred(node)
            yield from ((v, inferred[v.name]) for v in node.outputs if v.name and v.name in inferred)

    def _inferred(self, node: ir.Node) -> Mapping[str, onnx.TypeProto]:
        kinds = {v: self._type(v) for v in node.inputs if v is not None}
        if None in kinds.values():
            return {}
        if (
            is_op(node, QUANTIZE, DEQUANTIZE) and node.inputs[0] is not None
        ):  # on float16 onnx refuses them at old opsets
            source, made = kinds[node.inputs[0]], onnx.TypeProto()
            assert source is not None
            made.CopyFrom(source)
            kind = ir.DataType.UINT8 if is_op(node, QUANTIZE) else ir.DataType.FLOAT
            made.tensor_type.elem_type = int(node.outputs[0].dtype or kind)
            return {node.outputs[0].name or "": made}
        try:
            return onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, self._opset, ""),
                ir.serde.serialize_node(node),
                {v.name or "": k for v, k in kinds.items() if k is not None},
                {v.name or "": data for v in kinds if (data := self._data(node, v)) is not None},
                opset_imports=self._imports,
            )
        except Exception:  # onnx raises several classes, the computation of a constant others
            return {}

    def _data(self, node: ir.Node, value: ir.Value) -> onnx.TensorProto | None:
        """The content of an input that may decide the shape of a result."""
        kind = self._type(value)
        if kind is None or not (kind.tensor_type.elem_type in DECIDING or node.op_type == "Resize"):
            return None
        if math.prod(d.dim_value for d in kind.tensor_type.shape.dim) > MAX_SIZES:
            return None
        constant = self._constants.is_constant(value)
        return onnx.numpy_helper.from_array(self._constants.array(value), value.name) if constant else None

    def _type(self, value: ir.Value) -> onnx.TypeProto | None:
        known = self._types.get(value)
        tensor = value.const_value
        if known is None and tensor is not None:
            known = onnx.helper.make_tensor_type_proto(int(tensor.dtype), tensor.shape.numpy())
            self._types[value] = known
        return known


def _axes(value: ir.Value) -> list[int | Axis]:
    """The axes of an input: sizes, and names of the free ones."""
    if not isinstance(value.type, ir.TensorType) or value.shape is None:
        return []
    name = value.name or ""
    return [d if isinstance(d, int) else d.value or (name, axis) for axis, d in enumerate(value.shape)]


def _declared(value: ir.Value) -> onnx.TypeProto | None:
    """The type of a result whose sizes are all known."""
    if value.dtype is None or value.shape is None or not all(isinstance(d, int) for d in value.shape):
        return None
    return onnx.helper.make_tensor_type_proto(int(value.dtype), [int(d) for d in value.shape if isinstance(d, int)])
