"""Random damages to a converted model, each at one node: what a tool, a script or a hand may do to a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

NEIGHBOURS = {
    "Relu": "Sigmoid",
    "Sigmoid": "Relu",
    "Clip": "Relu",
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "Add",
    "Div": "Mul",
    "Round": "Floor",
    "MaxPool": "AveragePool",
    "GlobalAveragePool": "GlobalMaxPool",
    "GlobalMaxPool": "GlobalAveragePool",
    "Softmax": "LogSoftmax",
    "Tanh": "Sigmoid",
    "HardSigmoid": "Sigmoid",
    "Erf": "Tanh",
    "Sqrt": "Exp",
    "ReduceMean": "ReduceMax",
}
"""Operators that take the same inputs."""
UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs")


@dataclass(frozen=True)
class Damage:
    """What was done to which node."""

    kind: str
    node: str
    op_type: str


Random = np.random.Generator


class Damaged:
    """One model under damage.

    Args:
        model: is changed.
        random: chooses node and size.
    """

    def __init__(self, model: onnx.ModelProto, random: Random) -> None:
        self.model, self.random = model, random
        self.graph = model.graph
        self.constants = {t.name: t for t in self.graph.initializer}
        self.outputs = {o.name for o in self.graph.output}

    def apply(self) -> Damage | None:
        """One damage of a random kind at a random node; None when that kind does not fit the node."""
        kind = str(self.random.choice(list(KINDS)))
        node = self.graph.node[int(self.random.integers(len(self.graph.node)))]
        if node.op_type == "Constant":
            return None
        made = Damage(kind, node.name, node.op_type)
        return made if KINDS[kind](self, node) else None

    def removed(self, node: onnx.NodeProto) -> bool:
        """Its readers read its first input."""
        if node.op_type not in (*NEIGHBOURS, "AscendQuant", "AscendAntiQuant", "Transpose", "Cast", "Identity"):
            return False
        if node.output[0] in self.outputs or not node.input or node.input[0] in self.constants:
            return False
        self._read_instead(node.output[0], node.input[0])
        self.graph.node.remove(node)
        return True

    def replaced(self, node: onnx.NodeProto) -> bool:
        """By an operator that takes the same inputs."""
        if node.op_type not in NEIGHBOURS:
            return False
        node.op_type = NEIGHBOURS[node.op_type]
        if node.op_type == "Relu":
            del node.input[1:], node.attribute[:]
        if node.op_type in ("Sigmoid", "Tanh", "Relu"):
            del node.attribute[:]
        return True

    def moved(self, node: onnx.NodeProto) -> bool:
        """Behind its reader: both change places."""
        reader = self._only_reader(node)
        if reader is None or len([i for i in node.input if i not in self.constants]) != 1:
            return False
        if node.output[0] in self.outputs or reader.output[0] in self.outputs or reader.input[0] != node.output[0]:
            return False
        first, middle, last = node.input[0], node.output[0], reader.output[0]
        reader.input[0], reader.output[0], node.input[0], node.output[0] = first, middle, middle, last
        return self._sort()

    def attribute(self, node: onnx.NodeProto) -> bool:
        """One number of one attribute, of a quantizer's but scale and offset."""
        names = [a for a in node.attribute if a.type in (1, 2, 7) and a.name not in ("scale", "offset", "dtype", "to")]
        if not names:
            return False
        chosen = names[int(self.random.integers(len(names)))]
        if chosen.type == 1:
            chosen.f *= 1.5
        elif chosen.type == 2:
            chosen.i = 1 - chosen.i if chosen.i in (0, 1) else chosen.i + 1
        elif len(chosen.ints) > 1 and chosen.name == "perm":
            chosen.ints[0], chosen.ints[1] = chosen.ints[1], chosen.ints[0]
        elif len(chosen.ints):
            place = int(self.random.integers(len(chosen.ints)))
            chosen.ints[place] += 1
        return True

    def one_element(self, node: onnx.NodeProto) -> bool:
        """Of a constant."""

        def change(values: np.ndarray) -> None:  # type: ignore[type-arg]
            place = int(self.random.integers(values.size))
            values.reshape(-1)[place] = self._other(values, values.reshape(-1)[place])

        return self._constant(node, change)

    def one_channel(self, node: onnx.NodeProto) -> bool:
        """Of a constant, along its first axis."""

        def change(values: np.ndarray) -> None:  # type: ignore[type-arg]
            if values.ndim == 0:
                values[...] = self._other(values, values)
                return
            place = int(self.random.integers(values.shape[0]))
            values[place] = self._other(values, values[place])

        return self._constant(node, change)

    def all_elements(self, node: onnx.NodeProto) -> bool:
        """Of a constant."""

        def change(values: np.ndarray) -> None:  # type: ignore[type-arg]
            values[...] = self._other(values, values)

        return self._constant(node, change)

    def sign(self, node: onnx.NodeProto) -> bool:
        """Of all numbers of a constant."""

        def change(values: np.ndarray) -> None:  # type: ignore[type-arg]
            values[...] = np.negative(values) if values.dtype != np.int8 else np.clip(-values.astype(int), -128, 127)

        return self._constant(node, change)

    def swapped(self, node: onnx.NodeProto) -> bool:
        """The first two inputs."""
        if len(node.input) < 2 or not all(node.input[:2]) or node.op_type == "Constant":
            return False
        node.input[0], node.input[1] = node.input[1], node.input[0]
        return True

    def scale(self, node: onnx.NodeProto) -> bool:
        """Of a quantizer, up to a quarter."""
        return self._quantizer(node, "scale", lambda v: v * float(self.random.choice([0.8, 0.97, 1.03, 1.25])))

    def offset(self, node: onnx.NodeProto) -> bool:
        """The zero point of a quantizer."""
        return self._quantizer(node, "offset", lambda v: v + float(self.random.choice([-9, -1, 1, 9])))

    def dtype(self, node: onnx.NodeProto) -> bool:
        """A Cast to another type; a Cast to integers and back otherwise."""
        if node.op_type == "Cast":
            helper.get_node_attr_value(node, "to")
            next(a for a in node.attribute if a.name == "to").i = onnx.TensorProto.FLOAT16
            return True
        if not node.input or node.input[0] in self.constants or node.op_type in ("AscendDequant", "AscendAntiQuant"):
            return False
        self._between(node, helper.make_node("Cast", [node.input[0]], ["damage.int"], "damage.down", to=6))
        self._between(node, helper.make_node("Cast", [node.input[0]], ["damage.float"], "damage.up", to=1))
        return True

    def duplicated(self, node: onnx.NodeProto) -> bool:
        """A second one behind the first."""
        if len(node.output) != 1 or not node.input or node.output[0] in self.outputs:
            return False
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name, copy.input[0], copy.output[0] = f"{node.name}.again", node.output[0], f"{node.output[0]}.again"
        self._read_instead(node.output[0], copy.output[0])
        self.graph.node.insert(list(self.graph.node).index(node) + 1, copy)
        return True

    def added(self, node: onnx.NodeProto) -> bool:
        """An activation in front of it that nobody asked for."""
        if not node.input or node.input[0] in self.constants:
            return False
        self._between(
            node, helper.make_node(str(self.random.choice(UNARY)), [node.input[0]], ["damage.out"], "damage.node")
        )
        return True

    def rewired(self, node: onnx.NodeProto) -> bool:
        """The first input is another tensor made before it."""
        place = list(self.graph.node).index(node)
        before = [o for n in list(self.graph.node)[:place] for o in n.output if o and o != node.input[0]]
        if not node.input or node.input[0] in self.constants or not before:
            return False
        node.input[0] = str(self.random.choice(before))
        return True

    def _quantizer(self, node: onnx.NodeProto, name: str, change: Callable[[float], float]) -> bool:
        if node.op_type in ("AscendQuant", "AscendAntiQuant"):
            found = next(a for a in node.attribute if a.name == name)
            found.f = change(found.f)
            return True
        parts = {
            "scale": ("fakequant.mul", "fakedequant.mul", "fakedequant"),
            "offset": ("fakequant.add", "fakequant.sub"),
        }
        if not node.name.endswith(parts[name]) or len(node.input) < 2 or node.input[1] not in self.constants:
            return False
        return self._constant(node, lambda v: np.copyto(v, change(float(v)) if v.ndim == 0 else v * change(1.0)))

    def _constant(self, node: onnx.NodeProto, change: Callable[[np.ndarray], None]) -> bool:  # type: ignore[type-arg]
        names = [i for i in node.input if i in self.constants]
        if not names:
            return False
        name = names[int(self.random.integers(len(names)))]
        values = numpy_helper.to_array(self.constants[name]).copy()
        if values.size == 0 or values.dtype == np.int64 or values.dtype.kind not in "fiu":
            return False
        change(values)
        new = f"{name}.damaged"
        self.graph.initializer.append(numpy_helper.from_array(values, new))
        node.input[list(node.input).index(name)] = new
        return True

    def _other(self, values: np.ndarray, old: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        """Near the old numbers, or far from them."""
        far = bool(self.random.integers(2))
        if values.dtype == np.uint64:  # scales in the low 32 bits
            bits = (np.asarray(old) & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)
            scaled = (bits * np.float32(1.5 if far else 1.05)).view(np.uint32).astype(np.uint64)
            return np.asarray((np.asarray(old) & ~np.uint64(0xFFFFFFFF)) | scaled)
        if values.dtype == np.int8:
            return np.asarray(
                np.where(
                    np.asarray(old) > 0, np.asarray(old) - (60 if far else 1), np.asarray(old) + (60 if far else 1)
                )
            )
        if values.dtype.kind in "iu":
            return np.asarray(old + values.dtype.type(1000 if far else 3))
        return np.asarray(old * values.dtype.type(1.5 if far else 1.02) + values.dtype.type(0.5 if far else 0.01))

    def _read_instead(self, old: str, new: str) -> None:
        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new

    def _between(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        self.graph.node.insert(list(self.graph.node).index(node), new)
        node.input[0] = new.output[0]

    def _only_reader(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        readers = [n for n in self.graph.node if node.output[0] in n.input]
        return readers[0] if len(readers) == 1 and len(node.output) == 1 else None

    def _sort(self) -> bool:
        """In an order in which each node stands behind what it reads."""
        made = {i.name for i in self.graph.input} | set(self.constants) | {""}
        waiting, ordered = list(self.graph.node), []
        while waiting:
            ready = [n for n in waiting if set(n.input) <= made]
            if not ready:
                return False
            for n in ready:
                made |= set(n.output)
                waiting.remove(n)
                ordered.append(n)
        del self.graph.node[:]
        self.graph.node.extend(ordered)
        return True


KINDS: dict[str, Callable[[Damaged, onnx.NodeProto], bool]] = {
    "removed": Damaged.removed,
    "replaced": Damaged.replaced,
    "moved": Damaged.moved,
    "attribute": Damaged.attribute,
    "one element": Damaged.one_element,
    "one channel": Damaged.one_channel,
    "all elements": Damaged.all_elements,
    "sign": Damaged.sign,
    "swapped": Damaged.swapped,
    "scale": Damaged.scale,
    "offset": Damaged.offset,
    "dtype": Damaged.dtype,
    "duplicated": Damaged.duplicated,
    "added": Damaged.added,
    "rewired": Damaged.rewired,
}


def neighbourhood(model: onnx.ModelProto, name: str) -> set[str]:
    """A node, what it reads from and what reads it."""
    nodes = {n.name: n for n in model.graph.node}
    node = nodes.get(name)
    if node is None:
        return {name}
    around = {n.name for n in nodes.values() if set(n.input) & set(node.output) or set(n.output) & set(node.input)}
    return {name, *around}
