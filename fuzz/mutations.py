"""Change a serialised ONNX model at random: its protobuf fields, its graph, its tensors, its bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

INTEGERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    13,
    21,
    127,
    255,
    2**15,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
    -1,
    -2,
    -(2**31),
    -(2**63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 3e38, float("nan"), float("inf"), -float("inf"), 0.1, 255.0)
NAMES = ("", "x", "q", "d", "w", "s", "z", "ghost", "a/b", "..", "ü", "\0", "n" * 300, "../../etc/passwd")
LOCATIONS = (
    "w.data",
    "./w.data",
    "../outside/secret",
    "link",
    "folder/secret",
    "/proc/self/mem",
    "/dev/zero",
    "",
    "pipe",
)
"""Locations of external data; ``oracle.Sandbox`` says what is there."""
OPERATORS = (
    "QuantizeLinear", "DequantizeLinear", "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Clip", "Transpose",
    "Reshape", "Identity", "Cast", "ConstantOfShape", "Expand", "Range", "Tile", "Pad", "Concat", "Resize", "Constant",
    "If", "Loop", "QLinearConv", "QLinearMatMul", "QLinearAdd", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear",
    "BatchNormalization", "Relu", "MaxPool", "AveragePool", "Flatten", "Slice", "Gather", "Shape", "OneHot", "Quant",
    "AscendQuant", "AscendDequant", "AscendAntiQuant", "Trunc", "BipolarQuant", "FakeQuantize", "QGemm", "Einsum",
)  # fmt: skip
ATTRIBUTES = (
    "axis", "group", "pads", "strides", "dilations", "kernel_shape", "to", "auto_pad", "perm", "alpha", "transB",
    "transA", "block_size", "value", "output_shape", "scale", "offset",
)  # fmt: skip
KINDS = (np.float32, np.float16, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, np.bool_)
DOMAINS = ("", "ai.onnx", "com.microsoft", "qonnx.custom_op.general", "org.openvinotoolkit", "local", "mct_quantizers")
Mutation = Callable[[onnx.ModelProto, random.Random], None]


def mutate(content: bytes, chance: random.Random, others: list[bytes] | None = None) -> bytes:
    """A changed model; mostly protobuf that parses, sometimes none.

    Args:
        content: a serialised model, or any bytes.
        chance: decides everything.
        others: models whose parts may be put in.
    """
    made = content
    if chance.random() < 0.9:
        try:
            model = onnx.ModelProto.FromString(content)
        except DecodeError:
            return change_bytes(content, chance)
        for _ in range(min(8, 1 + int(chance.expovariate(0.7)))):
            try:
                chance.choice(MUTATIONS)(model, chance)
                if others and chance.random() < 0.05:
                    splice(model, chance, others)
            except Exception:  # nothing there to change, or a value that the field cannot hold: many classes
                continue
        made = model.SerializeToString()
    return change_bytes(made, chance) if chance.random() < 0.15 else made


def change_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flip bits, cut out, repeat or insert bytes, or cut off the end."""
    made = bytearray(content or b"\0")
    for _ in range(chance.randint(1, 6)):
        position = chance.randrange(len(made))
        stop = min(len(made), position + chance.choice((1, 1, 2, 8, 64)))
        kind = chance.randrange(10)
        if kind < 6:
            made[position] ^= 1 << chance.randrange(8)
        elif kind == 6 and len(made) > 64:
            del made[position:stop]
        elif kind == 7:
            made[position:position] = made[position:stop]
        elif kind == 8:
            made[position:position] = chance.randbytes(chance.choice((1, 4, 16)))
        elif chance.random() < 0.3 and position > 64:
            del made[position:]
    return bytes(made)


def _messages(root: Message) -> Iterator[Message]:
    stack = [root]
    while stack:
        message = stack.pop()
        yield message
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                stack.extend(value if field.is_repeated else [value])


def any_field(model: onnx.ModelProto, chance: random.Random) -> None:
    """Any field of any message: another value, cleared, an element more, less, or elsewhere."""
    message = chance.choice(list(_messages(model)))
    field = chance.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if not field.is_repeated:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            message.ClearField(field.name) if chance.random() < 0.5 else value.SetInParent()
        else:
            setattr(message, field.name, _scalar(field, value, chance))
        return
    kind = chance.randrange(5)
    if kind == 0 and value:
        del value[chance.randrange(len(value))]
    elif kind == 1 and value:
        one = value[chance.randrange(len(value))]
        value.add().CopyFrom(one) if field.type == FieldDescriptor.TYPE_MESSAGE else value.append(one)
    elif kind == 2 and len(value) > 1:
        first, second = chance.sample(range(len(value)), 2)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            kept = type(value[first]).FromString(value[first].SerializeToString())
            value[first].CopyFrom(value[second])
            value[second].CopyFrom(kept)
        else:
            value[first], value[second] = value[second], value[first]
    elif kind == 3:
        value.add() if field.type == FieldDescriptor.TYPE_MESSAGE else value.append(_scalar(field, None, chance))
    elif value and field.type != FieldDescriptor.TYPE_MESSAGE:
        value[chance.randrange(len(value))] = _scalar(field, value[0], chance)


def _scalar(field: Any, value: Any, chance: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(NAMES)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return change_bytes(value, chance) if value else chance.randbytes(chance.choice((0, 1, 4, 16)))
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return chance.choice(FLOATS)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return chance.randrange(0, 24)
    if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64):
        near = [value + 1, value - 1, -value] if isinstance(value, int) else []
        return chance.choice([*INTEGERS, *near])
    return bool(chance.randrange(2))


def _graphs(model: onnx.ModelProto) -> list[Any]:
    return [m for m in _messages(model) if isinstance(m, (onnx.GraphProto, onnx.FunctionProto)) and m.node]


def rewire(model: onnx.ModelProto, chance: random.Random) -> None:
    """A node reads, or writes, another tensor of its graph: cycles, dangling inputs, tensors defined twice."""
    graph = chance.choice(_graphs(model))
    names = [n for node in graph.node for n in [*node.input, *node.output]] + list(NAMES)
    node = chance.choice(graph.node)
    ends = node.input if chance.random() < 0.8 else node.output
    if ends and chance.random() < 0.85:
        ends[chance.randrange(len(ends))] = chance.choice(names)
    elif ends and chance.random() < 0.5:
        del ends[-1]
    else:
        ends.append(chance.choice(names))


def change_nodes(model: onnx.ModelProto, chance: random.Random) -> None:
    """Drop, repeat, move or rename a node, or give it another operator or domain."""
    graph = chance.choice(_graphs(model))
    index = chance.randrange(len(graph.node))
    kind = chance.randrange(6)
    if kind == 0:
        del graph.node[index]
    elif kind == 1:
        graph.node.add().CopyFrom(graph.node[index])
    elif kind == 2:
        moved = onnx.NodeProto.FromString(graph.node[index].SerializeToString())
        del graph.node[index]
        graph.node.insert(chance.randrange(len(graph.node) + 1), moved)
    elif kind == 3:
        graph.node[index].op_type = chance.choice(OPERATORS)
    elif kind == 4:
        graph.node[index].domain = chance.choice(DOMAINS)
    else:
        graph.node[index].name = chance.choice([chance.choice(graph.node).name, *NAMES])


def change_attribute(model: onnx.ModelProto, chance: random.Random) -> None:
    """An attribute more, of another type, or of another value."""
    node = chance.choice(chance.choice(_graphs(model)).node)
    names = [a.name for a in node.attribute] + list(ATTRIBUTES)
    name = chance.choice(names)
    values: list[Any] = [
        chance.choice(INTEGERS),
        chance.choice(FLOATS),
        chance.choice(NAMES),
        [chance.choice(INTEGERS)] * 2,
    ]
    made = onnx.helper.make_attribute(name, chance.choice(values))
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.CopyFrom(made)
            return
    node.attribute.append(made)


def change_tensor(model: onnx.ModelProto, chance: random.Random) -> None:
    """Another content, type or shape; mostly one that fits the others, so that it gets past the reader."""
    tensors = [m for m in _messages(model) if isinstance(m, onnx.TensorProto) and not m.external_data]
    tensor = chance.choice(tensors)
    array = np.array(onnx.numpy_helper.to_array(tensor))
    if array.dtype.kind not in "fiub":
        return
    kind = chance.randrange(5)
    if kind <= 1 and array.size:
        pool = FLOATS if array.dtype.kind == "f" else INTEGERS
        with np.errstate(all="ignore"):
            value = np.asarray(chance.choice(pool)).astype(array.dtype)
        array.reshape(-1)[chance.randrange(array.size)] = value
        if chance.random() < 0.3:
            array[...] = value
    elif kind == 2:
        with np.errstate(all="ignore"):
            array = array.astype(chance.choice(KINDS))
    elif kind == 3:
        array = array.reshape(chance.choice(([-1], [1, *array.shape], [*array.shape, 1], [*reversed(array.shape)])))
    else:
        array = np.resize(array, chance.choice(([], [0], [1], [2], [4], [4, 4], [*array.shape, 2], array.shape[1:])))
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def make_external(model: onnx.ModelProto, chance: random.Random) -> None:
    """A tensor's content lies in another file, allowed or not."""
    tensor = chance.choice([m for m in _messages(model) if isinstance(m, onnx.TensorProto)])
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    entries = {
        "location": chance.choice(LOCATIONS),
        "offset": str(chance.choice((0, 8, 64, *INTEGERS))),
        "length": str(chance.choice((length, length, *INTEGERS))),
    }
    for key, value in entries.items():
        if chance.random() < 0.9:
            tensor.external_data.add(key=key, value=value)


def change_opset(model: onnx.ModelProto, chance: random.Random) -> None:
    """Another version of a domain, a domain more, or a domain twice."""
    if model.opset_import and chance.random() < 0.7:
        chance.choice(model.opset_import).version = chance.choice((*range(1, 25), *INTEGERS))
    else:
        model.opset_import.add(domain=chance.choice(DOMAINS), version=chance.randrange(26))


def change_shape(model: onnx.ModelProto, chance: random.Random) -> None:
    """The declared type or shape of a graph's input, output or inner value."""
    graph = chance.choice([g for g in _graphs(model) if isinstance(g, onnx.GraphProto)])
    value = chance.choice([*graph.input, *graph.output, *graph.value_info])
    kind = value.type.tensor_type
    if chance.random() < 0.3:
        kind.elem_type = chance.randrange(24)
    elif chance.random() < 0.2:
        value.ClearField("type")
    elif kind.shape.dim and chance.random() < 0.8:
        chance.choice(kind.shape.dim).dim_value = chance.choice(INTEGERS)
    else:
        kind.shape.dim.add(dim_value=chance.choice(INTEGERS))


def put_before(model: onnx.ModelProto, chance: random.Random) -> None:
    """A tensor is read through a new node: a computed constant, maybe a huge one."""
    graph = chance.choice(_graphs(model))
    node = chance.choice(graph.node)
    if not node.input:
        return
    index = chance.randrange(len(node.input))
    source, new = node.input[index], f"new_{chance.randrange(10**6)}"
    sizes = [chance.choice((1, 2, 4, 1000, 2**20, 2**31, 2**40))] * chance.randint(1, 3)
    shape = onnx.helper.make_node("Constant", [], [new + "_shape"], value_ints=sizes)
    kind = chance.choice(
        ("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Concat", "Identity", "Reshape", "Gather")
    )
    reads = {
        "ConstantOfShape": [new + "_shape"],
        "Range": [source, new + "_shape", source],
        "Identity": [source],
        "Concat": [source] * chance.choice((2, 50)),
    }.get(kind, [source, new + "_shape"])
    extra = {"axis": 0} if kind == "Concat" else {}
    graph.node.insert(0, onnx.helper.make_node(kind, reads, [new], **extra))
    graph.node.insert(0, shape)
    reader = next(n for n in graph.node if source in n.input and new not in n.output)
    reader.input[list(reader.input).index(source)] = new


def splice(model: onnx.ModelProto, chance: random.Random, others: list[bytes]) -> None:
    """A message becomes one of its kind out of another model."""
    target = chance.choice(list(_messages(model)))
    donor = onnx.ModelProto.FromString(chance.choice(others))
    found = [m for m in _messages(donor) if m.DESCRIPTOR is target.DESCRIPTOR]
    if found:
        target.CopyFrom(chance.choice(found))


MUTATIONS: tuple[Mutation, ...] = (
    any_field, any_field, rewire, rewire, change_nodes, change_attribute, change_tensor, change_tensor, make_external,
    change_opset, change_shape, put_before,
)  # fmt: skip
