"""Open a lowered model in onnxruntime, with pinned options and weights of any size."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from amct_onnx.common.arrays import Array
from amct_onnx.common.onnxruntime_session import (
    GRAPH_ORDER,
    PINNED_ENTRIES,
    PINNED_LEVEL,
    open_session,
    session_options,
)
from amct_onnx.device.lowering.lowered import Lowered
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.files.compose import EXTERNAL_FROM, INLINE_LIMIT, weight_bytes

_option_lock = threading.Lock()


class LoweredSession:
    """An onnxruntime session of a lowered model.

    Large weights do not stand in the model that onnxruntime gets: serialised and parsed, they would be in memory four
    times. They are inputs of the session, fed from this process's memory in each run without a copy. This holds for
    those that only a Cast reads (for others' kernels onnxruntime rearranges constants once, inputs in each run), and
    for all where one protobuf message does not hold them.

    Args:
        lowered: its model is used up.
        sess_options: onnxruntime's; those that change results are overridden, and restored afterwards.
        cpu_options: options of the execution provider.
        message_limit: bytes of weights that one message holds.

    Raises:
        UnsupportedModelError: onnxruntime refuses the model, or weights of types that cannot be fed exceed a message.
    """

    def __init__(
        self,
        lowered: Lowered,
        sess_options: ort.SessionOptions | None = None,
        cpu_options: Mapping[str, Any] | None = None,
        *,
        message_limit: int = INLINE_LIMIT,
    ) -> None:
        model = lowered.model
        self._input_count = len(model.graph.inputs)
        self._weights = _take_weights(model.graph, every=weight_bytes(model) > message_limit)
        left = weight_bytes(model)
        if left > message_limit:
            raise UnsupportedModelError(
                f"{left} bytes of the weights are small or of types that numpy lacks; more than {message_limit} of "
                "these cannot be simulated in one session. Split the model."
            )
        content = ir.to_proto(model).SerializeToString()
        with _option_lock, _Pinned(sess_options or session_options()) as options:
            self.session = _create(content, options, cpu_options)

    def run(self, names: Sequence[str], feeds: Mapping[str, Any], run_options: Any = None) -> list[Any]:
        """The named outputs; see ``onnxruntime.InferenceSession.run``."""
        return list(self.session.run(names, {**feeds, **self._weights}, run_options))

    def get_inputs(self) -> list[Any]:
        """The model's own inputs."""
        return list(self.session.get_inputs()[: self._input_count])


def _take_weights(graph: ir.Graph, *, every: bool) -> dict[str, Array]:
    """Turn large initializers into inputs, all or those that only a Cast reads; return what to feed, by name."""
    weights = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        # numpy, and so a feed, has no other types
        if tensor is None or tensor.nbytes < EXTERNAL_FROM or tensor.dtype.numpy().kind not in "biuf":
            continue
        if value.is_graph_output() or not (every or all(n.op_type == "Cast" for n, _ in value.uses())):
            continue
        del graph.initializers[name]
        value.const_value = None
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        graph.inputs.append(value)
        weights[name] = np.require(tensor.numpy(), requirements=["C", "A"])
    return weights


def _create(content: bytes, options: ort.SessionOptions, cpu_options: Mapping[str, Any] | None) -> ort.InferenceSession:
    try:
        return open_session(content, options, cpu_options)
    except Exception as error:  # onnxruntime's classes share no base
        raise UnsupportedModelError(
            f"ONNX Runtime refuses the model's other operators ({error}). Check them with the fake-quant model."
        ) from error


class _Pinned:
    """The caller's options with the pins set, and restored afterwards: a session copies what it is given."""

    def __init__(self, options: ort.SessionOptions) -> None:
        self._options = options

    def __enter__(self) -> ort.SessionOptions:
        self._level, self._order = self._options.graph_optimization_level, self._options.execution_order
        self._options.graph_optimization_level, self._options.execution_order = PINNED_LEVEL, GRAPH_ORDER
        self._entries: dict[str, str] = {}
        for key, value in PINNED_ENTRIES.items():
            before = self._entry(key)
            # an entry cannot be removed again, and onnxruntime prints a warning for each that is set a second time
            if before not in (None, value):
                self._entries[key] = before
                self._options.add_session_config_entry(key, value)
        return self._options

    def __exit__(self, *_: object) -> None:
        self._options.graph_optimization_level, self._options.execution_order = self._level, self._order
        for key, value in self._entries.items():
            self._options.add_session_config_entry(key, value)

    def _entry(self, key: str) -> str | None:
        try:
            return str(self._options.get_session_config_entry(key))
        except RuntimeError:  # never set
            return None
