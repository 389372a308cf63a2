"""Insert nodes into a graph that is being lowered, under free names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_onnx.graph.edit import GraphEditor
from amct_onnx.graph.moves import data_inputs, fills
from amct_onnx.graph.quantizer_nodes import is_op


class LoweringEditor:
    """Inserts nodes before the node that is being lowered, and small constants into the main graph."""

    def __init__(self, model: ir.Model) -> None:
        self._edit = GraphEditor(model)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._halves: set[ir.Value] = set()
        self._before: ir.Node | None = None
        self._after: ir.Node | None = None
        self._prefix = ""

    def before(self, node: ir.Node) -> None:
        """Insert what follows before the node."""
        self._before, self._after, self._prefix = node, None, node.name or node.op_type

    def after(self, node: ir.Node) -> None:
        """Insert what follows after the node, in order."""
        self._before, self._after, self._prefix = None, node, node.name or node.op_type

    def at_end(self) -> None:
        """Append what follows to the main graph."""
        self._before, self._after, self._prefix = None, None, "collected"

    def unique(self, name: str) -> str:
        """A name that no tensor has yet."""
        return self._edit.value_names.take(name)

    def node(
        self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Iterable[ir.Attr] = (), domain: str = ""
    ) -> ir.Value:
        """Insert a node; its one output."""
        name = self._edit.node_names.take(f"{self._prefix}:{op_type}")
        new = self._edit.insert(
            op_type, inputs, name, list(attributes), before=self._before, after=self._after, domain=domain
        )
        if self._after is not None:
            self._after = new
        return new.outputs[0]

    def constant(self, array: npt.NDArray[np.generic] | np.generic) -> ir.Value:
        """An initializer; equal ones are one."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, blake2b(np.ascontiguousarray(array).data).digest())
        if key not in self._constants:
            self._constants[key] = self._edit.constant("constant", array)
        return self._constants[key]

    def number(self, value: float) -> ir.Value:
        """A float32 scalar."""
        return self.constant(np.float32(value))

    def cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        """Insert a Cast."""
        return self.node("Cast", [value], [ir.AttrInt64("to", int(to))])

    def half(self, value: ir.Value) -> ir.Value:
        """Round a float32 tensor to float16, held in float32 again; one that holds such numbers already stays."""
        if not self._holds_half(value):
            value = self.cast(self.cast(value, ir.DataType.FLOAT16), ir.DataType.FLOAT)
            self._halves.add(value)
        return value

    def _holds_half(self, value: ir.Value) -> bool:
        """Whether only what chooses among its numbers stands between a rounding to float16 and this tensor."""
        waiting, seen = [value], set[ir.Value]()
        while waiting:
            current = waiting.pop()
            if current in self._halves or current in seen:
                continue
            seen.add(current)
            node = current.producer()
            positions = (0,) if is_op(node, "Relu") else () if node is None or fills(node) else data_inputs(node)
            inputs = [node.inputs[i] for i in positions] if node is not None else []
            if not inputs:
                return False
            waiting += [v for v in inputs if v is not None]
        return True

    def times(self, value: ir.Value, factor: ir.Value, count: int = 1) -> ir.Value:
        """Multiply ``count`` times."""
        for _ in range(count):
            value = self.node("Mul", [value, factor])
        return value
