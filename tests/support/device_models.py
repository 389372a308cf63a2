"""Small deploy models written node by node, and an evaluator that follows a device's pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.device.ascend_arithmetic import unpack_deq_scale
from amct_onnx.device.profiles import PROFILES
from amct_onnx.device.session import DeploySession
from support.deploy_evaluator import FLOATS, Evaluator, attributes

RANDOM = np.random.default_rng(5)
F32, F16, I8, I32 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT32


def deploy_session(content: bytes | Path, device: str, **options: Any) -> DeploySession:
    """A session of one thread: its pool would cost more than a model of a few numbers."""
    one = ort.SessionOptions()
    one.intra_op_num_threads = 1
    return DeploySession(content, one, device=device, **options)


def quant(x: str, y: str, scale: float, offset: int = 0, **extra: Any) -> onnx.NodeProto:
    """AscendQuant; scale is the reciprocal."""
    return helper.make_node(
        "AscendQuant", [x], [y], f"{y}.quant", scale=float(scale), offset=float(offset), dst_type="INT8", **extra
    )


def dequant(x: str, y: str, dtype: int = 0, **extra: Any) -> onnx.NodeProto:
    """AscendDequant with the parameter ``deq``."""
    return helper.make_node("AscendDequant", [x, "deq"], [y], f"{y}.dequant", dtype=dtype, **extra)


def antiquant(x: str, y: str, scale: float, offset: int = 0, dtype: int = 0, **extra: Any) -> onnx.NodeProto:
    """AscendAntiQuant."""
    return helper.make_node(
        "AscendAntiQuant", [x], [y], f"{y}.anti_quant", scale=float(scale), offset=float(offset), dtype=dtype, **extra
    )


def packed(scale: Any, shift: int = 0, offset_w: int = 0) -> np.ndarray:
    """AscendDequant's parameter."""
    bits = np.atleast_1d(np.asarray(scale, np.float32)).view(np.uint32).astype(np.uint64)
    return bits | np.uint64(shift << 32) | np.uint64((offset_w & 0xFF) << 40)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Any]],
    outputs: dict[str, int],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 13,
) -> bytes:
    """A serialised model; inputs are (type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "deploy",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return made.SerializeToString()


def int8(*shape: int) -> np.ndarray:
    """Random integers of the whole range."""
    return RANDOM.integers(-128, 128, shape).astype(np.int8)


def same(ours: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Assert equal bits."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape, name
        assert ours[name].tobytes() == value.tobytes(), f"{name}: {np.abs(ours[name] - value).max()}"


def outputs(session: DeploySession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The results of a session, by name."""
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


class DeviceEvaluator(Evaluator):
    """The independent evaluator with the three operators taken from a device's pure functions."""

    def __init__(self, path: str | Path, device: str) -> None:
        super().__init__(path)
        self.product = PROFILES[device]

    def quant(self, node: onnx.NodeProto, x: np.ndarray) -> None:
        """The device's AscendQuant."""
        attrs = attributes(node)
        offset = int(attrs["offset"])
        self.values[node.output[0]] = self.product.quantize(x, attrs["scale"], offset).astype(np.int8)
        self.offset[node.output[0]] = offset

    def dequant(self, node: onnx.NodeProto, acc: np.ndarray, parameter: np.ndarray) -> None:
        """The device's AscendDequant."""
        scale = unpack_deq_scale(parameter)[0]
        if len(scale) > 1:
            shape = [1] * acc.ndim
            shape[self.axis[node.input[0]]] = len(scale)
            scale = scale.reshape(shape)
        self.values[node.output[0]] = self.product.dequantize(acc, scale).astype(_result(node))

    def antiquant(self, node: onnx.NodeProto, q: np.ndarray) -> None:
        """The device's AscendAntiQuant."""
        attrs = attributes(node)
        value = self.product.antiquantize(q, attrs["scale"], int(attrs["offset"]))
        self.values[node.output[0]] = value.astype(_result(node))


def _result(node: onnx.NodeProto) -> type[np.generic]:
    """The float type that ``dtype`` asks for."""
    return FLOATS[attributes(node).get("dtype", 0)]
