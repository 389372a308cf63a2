"""One lazy evaluator for constants, wherever an exporter hides them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from amct_onnx.errors import FactorError
from amct_onnx.normalise.graph_edit import WITH_BODY

NOT_DETERMINISTIC = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
NOT_COMPUTED = NOT_DETERMINISTIC | WITH_BODY
IR_VERSION = 10
"""Of the one-node models that compute a constant; read by every supported onnxruntime."""
QDQ_OPSET = 21
"""Of a QuantizeLinear or DequantizeLinear that is computed; each version takes what the versions before it took."""


class ConstantEvaluator:
    """Evaluates values that depend on no graph input; each value is computed once, on demand.

    An initializer is not read before its content is asked for.
    """

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._is_constant: dict[ir.Value, bool] = {}
        self._arrays: dict[ir.Value, npt.NDArray[Any]] = {}

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether the value can be computed without running the model (iterative: graphs may be deep)."""
        if value is None:
            return False
        stack = [value]
        while stack:
            current = stack[-1]
            if current in self._is_constant:
                stack.pop()
                continue
            node = current.producer()
            if node is None:
                self._is_constant[current] = current.is_initializer() and current.const_value is not None
            elif node.op_type == "Constant":
                self._is_constant[current] = True
            elif node.domain not in ("", "ai.onnx") or node.op_type in NOT_COMPUTED or len(node.outputs) != 1:
                self._is_constant[current] = False
            else:
                inputs = [v for v in node.inputs if v is not None]
                pending = [v for v in inputs if v not in self._is_constant]
                if pending:
                    stack.extend(pending)
                    continue
                self._is_constant[current] = bool(inputs) and all(self._is_constant[v] for v in inputs)
        return self._is_constant[value]

    def tensor(self, value: ir.Value) -> ir.TensorProtocol | None:
        """The unread tensor of an initializer or a Constant node, through Identity; None when it must be computed."""
        node = value.producer()
        while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
            value = node.inputs[0]
            node = value.producer()
        if node is None:
            return value.const_value if self.is_constant(value) else None
        if node.op_type == "Constant" and "value" in node.attributes:
            return node.attributes["value"].as_tensor()
        return None

    def array(self, value: ir.Value) -> npt.NDArray[Any]:
        """The content of a constant value.

        Raises:
            ValueError: The value is not constant.
        """
        if value in self._arrays:
            return self._arrays[value]
        if not self.is_constant(value):
            raise ValueError(f"tensor '{value.name}' is not constant")
        tensor = self.tensor(value)
        if tensor is not None:
            return tensor.numpy()
        stack = [value]
        while stack:
            current = stack[-1]
            node = current.producer()
            if current in self._arrays or node is None:
                stack.pop()
                continue
            pending = [v for v in node.inputs if v is not None and v not in self._arrays and v.producer() is not None]
            if pending:
                stack.extend(pending)
            else:
                self._arrays[stack.pop()] = self._evaluate(node)
        return self._arrays[value]

    def _evaluate(self, node: ir.Node) -> npt.NDArray[Any]:
        """One node whose inputs are known; the operators that exporters repeat for each quantizer need no session."""
        inputs = [None if v is None else self._known(v) for v in node.inputs]
        if node.op_type == "Identity" and inputs[0] is not None:
            return inputs[0]
        if node.op_type == "DequantizeLinear" and inputs[0] is not None and inputs[1] is not None:
            return dequantize_constant(node, inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None)
        if node.op_type == "Cast" and inputs[0] is not None:
            to = ir.DataType(node.attributes["to"].as_int())
            if _casts_alike(inputs[0], to):
                return inputs[0].astype(to.numpy())
        return self._run(node.outputs[0])

    def _known(self, value: ir.Value) -> npt.NDArray[Any]:
        return self._arrays[value] if value in self._arrays else self.array(value)

    def _run(self, value: ir.Value) -> npt.NDArray[Any]:
        node = value.producer()
        assert node is not None
        feeds = {}
        for v in node.inputs:
            if v is not None:
                feeds[v.name or ""] = self._known(v)
        proto = ir.to_proto(node)
        graph = onnx.helper.make_graph(
            [proto],
            "constant",
            [_typed(n, array) for n, array in feeds.items()],
            [onnx.ValueInfoProto(name=o) for o in proto.output],
        )
        # per-channel factors and 4- and 16-bit integers are newer than the opsets in which models hold them
        opset = QDQ_OPSET if node.op_type in ("QuantizeLinear", "DequantizeLinear") else self._opset
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=IR_VERSION
        )
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, feeds)[0])


def _casts_alike(array: npt.NDArray[Any], to: ir.DataType) -> bool:
    """Whether numpy and ONNX agree on a Cast of these values: to a wider type, or of integers that fit."""
    if array.dtype.kind not in "fiub" or array.dtype == np.float64:
        return False
    if to in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return True
    if array.dtype.kind == "f" or to.numpy().kind not in "iu" or array.size == 0:
        return False
    limits = np.iinfo(to.numpy())
    return bool(array.min() >= limits.min and array.max() <= limits.max)


def dequantize_constant(
    node: ir.Node,
    integers: npt.NDArray[Any],
    scale: npt.NDArray[Any],
    zero_point: npt.NDArray[Any] | None,
) -> npt.NDArray[Any]:
    """DequantizeLinear: (integers - zero_point) * scale, in the type of scale, of integers' shape.

    Per-tensor, per-channel along ``axis`` and blockwise along ``axis`` (``block_size``), as in ONNX opset 21.

    Raises:
        FactorError: Factors that fit neither the tensor nor its axis.
    """
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    block = node.attributes["block_size"].as_int() if "block_size" in node.attributes else 0

    def spread(factor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if factor.size == 1:
            return factor.reshape([1] * integers.ndim)
        if block:
            return np.take(np.repeat(factor, block, axis=axis), range(integers.shape[axis]), axis=axis)
        layout = [1] * integers.ndim
        layout[axis] = -1
        return factor.reshape(layout)

    try:
        values = integers.astype(np.int64 if integers.dtype.itemsize > 2 else np.int32)
        if zero_point is not None:
            values = values - spread(np.asarray(zero_point).astype(values.dtype))
        return np.asarray((values.astype(np.float32) * spread(scale).astype(np.float32)).astype(scale.dtype))
    except (ValueError, IndexError) as error:
        raise FactorError(
            f"Node '{node.name}': scale of shape {list(scale.shape)} fits no axis {axis} of a tensor of shape "
            f"{list(integers.shape)}. Export the model again."
        ) from error


def _typed(name: str, array: npt.NDArray[Any]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
