"""One lazy evaluator for constants, wherever an exporter hides them."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import onnx
import onnx_ir as ir

from amct_onnx.common.arrays import Array, Float32
from amct_onnx.common.small_floats import SMALL_FLOATS
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.constant_quantizers import COMPUTED_TYPES, dequantize_constant, quantize_constant, quantized_type
from amct_onnx.graph.edit import known_as
from amct_onnx.graph.same_computation import computation
from amct_onnx.graph.tensor_content import tensor_bytes

COMPUTED = frozenset(
    """
    Identity Cast CastLike Constant QuantizeLinear DequantizeLinear Clip
    Abs Neg Sign Ceil Floor Round Sqrt Reciprocal Exp Log Sin Cos Erf Relu LeakyRelu PRelu Elu Sigmoid HardSigmoid Tanh
    Softplus Softmax Not IsNaN IsInf BitwiseNot
    Add Sub Mul Div Pow Mod Max Min Sum Mean Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Where BitShift
    BitwiseAnd BitwiseOr BitwiseXor
    Reshape Flatten Squeeze Unsqueeze Transpose Expand Tile Concat Slice Split Pad DepthToSpace SpaceToDepth Trilu
    Gather GatherElements GatherND ScatterElements ScatterND NonZero Compress OneHot Shape Size ConstantOfShape Range
    EyeLike
    ReduceMax ReduceMin ReduceSum ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp ArgMax ArgMin
    CumSum LpNormalization BatchNormalization MatMul Gemm
    """.split()
)
"""Operators that are computed, because exporters compute scales and weights with them. All are deterministic; time and
memory follow from the sizes of inputs and output; of others a hostile attribute would decide (kernels, bodies)."""
MAX_COMPUTED_BYTES = 256 << 20
"""Byte budget for all computed constants of one evaluator."""
COMPUTED_FACTOR = 32
"""Extra bytes of the budget for each byte that is read: a file of 1 kB may not ask for 1 GB."""
MAX_SHAPE_BYTES = 1 << 16
"""Shape inference sees the content of inputs up to this size, because they may be shapes."""
NOT_LARGER = ("NonZero", "Compress")
"""Operators whose result size depends on the content: at most one index per axis for each input element."""
NO_NUMBERS = {"O": "strings", "S": "strings", "U": "strings", "c": "complex numbers"}
"""numpy's kinds of arrays that are computed, but read as nothing."""
IR_VERSION = 10
"""IR version of the one-node models that compute a constant; every supported onnxruntime reads it."""
SMALL_TYPES_OPSET = 25
"""Opset whose data movement takes all types of 2 and 4 bits."""
QDQ_OPSET = 21
"""Opset for computing a QuantizeLinear or DequantizeLinear; it accepts what earlier versions accept."""


class ConstantEvaluator:
    """Evaluates values that depend on no graph input; each value is computed once, on demand.

    An initializer is not read before its content is asked for.

    Args:
        opset: of the model.
        budget: bytes that all computed constants may take, beside what the stored ones allow.
    """

    def __init__(self, opset: int, budget: int = MAX_COMPUTED_BYTES) -> None:
        self._opset = opset
        self._is_constant: dict[ir.Value, bool] = {}
        self._arrays: dict[ir.Value, Array] = {}
        self._results: dict[Hashable, Array] = {}
        self._left = budget
        self._counted: set[int] = set()
        self.factors: dict[tuple[ir.Value | None, ir.Value | None], tuple[Float32, Array]] = {}
        """Factors of one scale that were read of a quantizer's inputs; they are not to be changed in place."""

    def give(self, value: ir.Value, content: Array) -> None:
        """Take a value for a constant of this content, as the size of an axis that is decided."""
        self._is_constant[value], self._arrays[value] = True, content

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether the value can be computed without running the model (iterative: graphs may be deep)."""
        if value is None:
            return False
        known = self._is_constant.get(value)
        if known is not None:
            return known
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
                self._is_constant[current] = not node.inputs  # a damaged one may have some, and has no content
            elif node.domain not in ("", "ai.onnx") or node.op_type not in COMPUTED or len(node.outputs) != 1:
                self._is_constant[current] = False
            else:
                values = [v for v in node.inputs if v is not None]
                told = [self._is_constant.get(v) for v in values]
                if False in told or not values:
                    self._is_constant[current] = False
                elif None in told:
                    # of an activation's node the first input decides; its constants are not looked at
                    stack += (
                        values[:1] if told[0] is None else [v for v, t in zip(values, told, strict=True) if t is None]
                    )
                else:
                    self._is_constant[current] = True
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

    def array(self, value: ir.Value) -> Array:
        """The numbers of a constant value.

        Raises:
            UnsupportedModelError: It is not constant, cannot be computed, is far larger than its sources, or holds
                strings or complex numbers.
        """
        content = self._content(value)
        if content.dtype.kind in NO_NUMBERS:
            raise UnsupportedModelError(
                f"Tensor '{value.name}' holds {NO_NUMBERS[content.dtype.kind]}, and what reads it takes real numbers. "
                "Export the model again with numbers in it."
            )
        return content

    def _content(self, value: ir.Value) -> Array:
        """See ``array``; of any type."""
        stored = value.const_value
        if stored is not None and value.is_initializer():
            self._count(stored)
            return stored.numpy()
        if value in self._arrays:
            return self._arrays[value]
        if not self.is_constant(value):
            raise UnsupportedModelError(
                f"Tensor '{value.name}' must be a constant here, and depends on the model's inputs. Export with "
                "fixed (frozen) quantizers."
            )
        tensor = self.tensor(value)
        if tensor is not None:
            self._count(tensor)
            return tensor.numpy()
        stack = [value]
        while stack:
            current = stack[-1]
            node = current.producer()
            if current in self._arrays or node is None:
                stack.pop()
                continue
            missing = [v for v in node.inputs if v is not None and v not in self._arrays]
            pending = [v for v in missing if self.tensor(v) is None]
            if pending:
                stack.extend(pending)
            else:
                self._arrays[stack.pop()] = self._evaluate(node)
        return self._arrays[value]

    def _evaluate(self, node: ir.Node) -> Array:
        """One node whose inputs are known; the operators that exporters repeat for each quantizer need no session."""
        inputs = [None if v is None else self._known(v) for v in node.inputs]
        if node.op_type == "Identity" and inputs[0] is not None:
            return inputs[0]
        if node.op_type == "DequantizeLinear" and inputs[0] is not None and inputs[1] is not None:
            return dequantize_constant(node, inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None)
        if node.op_type == "QuantizeLinear" and inputs[0] is not None and inputs[1] is not None:
            zero = inputs[2] if len(inputs) > 2 else None
            kind = quantized_type(node, zero)
            if kind not in COMPUTED_TYPES:
                return quantize_constant(node, inputs[0], inputs[1], zero, kind)
        if node.op_type == "Cast" and inputs[0] is not None:
            to = ir.DataType(node.attributes["to"].as_int())
            if _casts_alike(inputs[0], to):
                return inputs[0].astype(to.numpy())
        same = computation(node, inputs)
        result = None if same is None else self._results.get(same)
        if result is None:
            result = self._run(node)
            if same is not None:
                self._results[same] = result
        return result

    def _known(self, value: ir.Value) -> Array:
        return self._arrays[value] if value in self._arrays else self._content(value)

    def _run(self, node: ir.Node) -> Array:
        feeds = {v.name or "": self._known(v) for v in node.inputs if v is not None}
        # per-channel factors and 4- and 16-bit integers are newer than the opsets in which models hold them
        opset = QDQ_OPSET if node.op_type in ("QuantizeLinear", "DequantizeLinear") else self._opset
        self._spend(node, _output_bytes(node, feeds, opset))
        if any(_is_small(array) for array in feeds.values()):
            return _run_in_python(node, feeds, opset)
        # imported here: it takes as long as a small conversion, and few constants need it
        from amct_onnx.common.onnxruntime_session import open_session, session_options

        options = session_options(threads=1)  # a pool of threads costs more than one node of constants
        try:
            content = _one_node(node, feeds, {}, opset).SerializeToString()
            session = open_session(content, options)
            return np.asarray(session.run(None, feeds)[0])
        except Exception as error:  # onnxruntime's classes have no common base of their own
            raise _not_computed(node, " ".join(str(error).split())[:300]) from error

    def _spend(self, node: ir.Node, size: int | None) -> None:
        """Take the bytes of a result from what is left.

        Raises:
            UnsupportedModelError: The size is unknown, or exceeds what is left.
        """
        if size is None:
            raise _not_computed(node, "its size does not follow from its inputs")
        if size > self._left:
            raise _not_computed(node, f"it would have {size} bytes, far more than the tensors that it is computed from")
        self._left -= size

    def _count(self, tensor: ir.TensorProtocol) -> None:
        """Raise the budget with each stored tensor that is read, anywhere in the chain."""
        if id(tensor) not in self._counted:
            self._counted.add(id(tensor))
            self._left += COMPUTED_FACTOR * tensor_bytes(tensor)


def _not_computed(node: ir.Node, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Node '{known_as(node)}' ({node.op_type}): the constant '{node.outputs[0].name}' cannot be computed: {why}. "
        "Export the model with constants folded."
    )


def _is_small(array: Array) -> bool:
    """Whether onnxruntime takes no array of this type: float8, float4, integers of 4 or 2 bits."""
    stored = ir.DataType.from_numpy(array.dtype)
    return stored.bitwidth < 8 or stored.name in SMALL_FLOATS


def _run_in_python(node: ir.Node, feeds: dict[str, Array], opset: int) -> Array:
    """One node by onnx's own evaluator."""
    from onnx.reference import ReferenceEvaluator  # its import takes long, and few models need it

    try:
        model = _one_node(node, feeds, {}, max(opset, SMALL_TYPES_OPSET))
        (result,) = ReferenceEvaluator(model).run(None, feeds)
        return np.asarray(result)
    except Exception as error:  # it raises what numpy and its operators raise
        raise _not_computed(node, " ".join(str(error).split())[:300]) from error


def _one_node(node: ir.Node, inputs: dict[str, Array], constants: dict[str, Array], opset: int) -> onnx.ModelProto:
    """A model of this node alone."""
    proto = ir.serde.serialize_node(node)
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [_typed(n, array) for n, array in inputs.items()],
        [onnx.ValueInfoProto(name=o) for o in proto.output],
        [_initializer(n, array) for n, array in constants.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def _output_bytes(node: ir.Node, feeds: dict[str, Array], opset: int) -> int | None:
    """Bytes of the node's result by onnx's shape inference; None when unknown."""
    if node.op_type in NOT_LARGER:
        return sum(array.size * max(1, array.ndim) for array in feeds.values()) * 8
    small = {n: a for n, a in feeds.items() if a.nbytes <= MAX_SHAPE_BYTES}
    large = {n: a for n, a in feeds.items() if n not in small}
    try:
        model = _one_node(node, large, small, opset)
        # no data_prop: it makes an object for each element of every 1-D tensor, and one node needs none
        kind = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type
    except Exception as error:  # what onnx raises on a node that it cannot read
        raise _not_computed(node, " ".join(str(error).split())[:300]) from error
    if not kind.HasField("shape") or not all(d.HasField("dim_value") for d in kind.shape.dim):
        return None
    width = ir.DataType(kind.elem_type).numpy().itemsize if kind.elem_type else 8
    size: int = math.prod(d.dim_value for d in kind.shape.dim) * width
    return size


def _casts_alike(array: Array, to: ir.DataType) -> bool:
    """Whether numpy and ONNX agree on a Cast of these values: to a wider type, or of integers that fit."""
    stored = ir.DataType.from_numpy(array.dtype)
    if _is_small(array):
        return to in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    # onnxruntime takes no array of bfloat16
    if stored != ir.DataType.BFLOAT16 and (array.dtype.kind not in "fiub" or stored == ir.DataType.DOUBLE):
        return False
    if to in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return True
    if array.dtype.kind == "f" or to.numpy().kind not in "iu" or array.size == 0:
        return False
    limits = np.iinfo(to.numpy())
    return bool(array.min() >= limits.min and array.max() <= limits.max)


def _initializer(name: str, array: Array) -> onnx.TensorProto:
    if array.dtype.kind in "OU":  # strings
        return onnx.numpy_helper.from_array(array, name)
    # onnx 1.17 takes no array of ml_dtypes
    proto: onnx.TensorProto = ir.to_proto(ir.tensor(array, name=name))
    return proto


def _typed(name: str, array: Array) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, ir.DataType.from_numpy(array.dtype), array.shape)
