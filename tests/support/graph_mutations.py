"""Changes of a model: those that keep its meaning to the last bit, and those that break its graph."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.random_graphs import reads

Mutation = Callable[[onnx.ModelProto, random.Random], None]
LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
LISTED = LAYERS | {"LSTM", "GRU", "RNN", "Einsum"}
"""Operators that are rows of the ledger, under the name that inlining a function may change."""
FUNCTION_DOMAIN = "local.wrapped"


# -- what keeps the meaning --------------------------------------------------------------------------------------------


def rename_tensors(model: onnx.ModelProto, chance: random.Random) -> None:
    """Every tensor but the graph's inputs and outputs, in bodies as well."""
    graph = model.graph
    kept = {v.name for v in [*graph.input, *graph.output]}
    made = {o for node in _all_nodes(graph) for o in node.output}
    made |= {v.name for body in _bodies(graph) for v in body.input}
    made |= {t.name for g in (graph, *_bodies(graph)) for t in g.initializer}
    old = sorted(made - kept - {""})
    numbers = list(range(len(old)))
    chance.shuffle(numbers)
    new = {
        name: f"r{number}_{chance.choice(('', 'a/b', ':0', 'ü'))}" for name, number in zip(old, numbers, strict=True)
    }
    for one in (graph, *_bodies(graph)):
        for node in one.node:
            node.input[:] = [new.get(n, n) for n in node.input]
            node.output[:] = [new.get(n, n) for n in node.output]
        for holder in (*one.initializer, *one.value_info, *one.input, *one.output):
            holder.name = new.get(holder.name, holder.name)


def shuffle_nodes(model: onnx.ModelProto, chance: random.Random) -> None:
    """Another order, valid or not: the reader sorts, as onnxruntime does. Initializers too."""
    for field in (model.graph.node, model.graph.initializer):
        copies = [type(item).FromString(item.SerializeToString()) for item in field]
        chance.shuffle(copies)
        del field[:]
        field.extend(copies)


def insert_identity(model: onnx.ModelProto, chance: random.Random) -> None:
    """Between any tensor, constants and integers included, and one reader."""
    index, node, position = _edge(model, chance)
    name = _fresh(model, chance)
    made = helper.make_node("Identity", [node.input[position]], [name], f"{name}.node")
    node.input[position] = name
    model.graph.node.insert(index, made)


def duplicate_pair(model: onnx.ModelProto, chance: random.Random) -> None:
    """One reader of a dequantized tensor gets a Q/DQ pair, or DQ, of its own."""
    makers = {o: n for n in model.graph.node for o in n.output}
    shared = [
        (index, node, position)
        for index, node in enumerate(model.graph.node)
        for position, name in enumerate(node.input)
        if name in makers and makers[name].op_type == "DequantizeLinear"
    ]
    if not shared:
        return
    index, reader, position = chance.choice(shared)
    chain = [makers[reader.input[position]]]
    if chain[0].input[0] in makers and makers[chain[0].input[0]].op_type == "QuantizeLinear":
        chain.insert(0, makers[chain[0].input[0]])
    source = chain[0].input[0]
    for original in chain:
        name = _fresh(model, chance)
        copy = onnx.NodeProto.FromString(original.SerializeToString())
        copy.name, copy.input[0], copy.output[0] = f"{name}.node", source, name
        model.graph.node.insert(index, copy)
        index, source = index + 1, name
    reader.input[position] = source


def add_dead_node(model: onnx.ModelProto, chance: random.Random) -> None:
    """A node that nothing reads."""
    names = [o for n in model.graph.node for o in n.output if o]
    name = _fresh(model, chance)
    model.graph.node.append(helper.make_node("Identity", [chance.choice(names)], [name], f"{name}.node"))


def add_dead_layer(model: onnx.ModelProto, chance: random.Random) -> None:
    """A copy of a layer that nothing reads."""
    layers = [n for n in model.graph.node if n.op_type in LAYERS]
    if layers:
        name = _fresh(model, chance)
        copy = onnx.NodeProto.FromString(chance.choice(layers).SerializeToString())
        copy.name, copy.output[0] = f"{name}.node", name
        model.graph.node.append(copy)


def add_unused_initializer(model: onnx.ModelProto, chance: random.Random) -> None:
    """A tensor that nothing reads."""
    array = np.full((chance.randrange(4), 2), np.nan, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(array, _fresh(model, chance)))


def initializer_to_constant(model: onnx.ModelProto, chance: random.Random) -> None:
    """An initializer becomes a Constant node."""
    graph = model.graph
    outputs = {o.name for o in graph.output}
    positions = [i for i, t in enumerate(graph.initializer) if t.name not in outputs]
    if not positions:
        return
    position = chance.choice(positions)
    tensor = graph.initializer[position]
    node = helper.make_node("Constant", [], [tensor.name], f"{_fresh(model, chance)}.node", value=tensor)
    for index, value in enumerate(graph.input):
        if value.name == tensor.name:
            del graph.input[index]
            break
    del graph.initializer[position]
    graph.node.insert(0, node)


def constant_to_initializer(model: onnx.ModelProto, chance: random.Random) -> None:
    """A Constant node becomes an initializer."""
    nodes = [i for i, n in enumerate(model.graph.node) if n.op_type == "Constant" and n.attribute[0].name == "value"]
    if nodes:
        index = chance.choice(nodes)
        node = model.graph.node[index]
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        del model.graph.node[index]


def declare_shapes(model: onnx.ModelProto, chance: random.Random) -> None:
    """Types and shapes of all inner tensors."""
    del model.graph.value_info[:]
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))


def forget_shapes(model: onnx.ModelProto, chance: random.Random) -> None:
    """No inner tensor's type or shape is declared."""
    del model.graph.value_info[:]


def repack_tensors(model: onnx.ModelProto, chance: random.Random) -> None:
    """The typed fields of a TensorProto in the place of its raw bytes."""
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32):
            made = helper.make_tensor(tensor.name, tensor.data_type, array.shape, array.reshape(-1).tolist())
            tensor.CopyFrom(made)


def into_function(model: onnx.ModelProto, chance: random.Random) -> None:
    """A quantizer or another node without body moves into a function of the model."""
    nodes = [
        n
        for n in model.graph.node
        if n.op_type not in LISTED | {"Constant"} and n.domain == "" and not any(a.HasField("g") for a in n.attribute)
    ]
    if not nodes:
        return
    node = chance.choice(nodes)
    name = f"f_{_fresh(model, chance)}"
    inputs = [f"in{i}" if n else "" for i, n in enumerate(node.input)]
    outputs = [f"out{i}" if n else "" for i, n in enumerate(node.output)]
    inner = onnx.NodeProto.FromString(node.SerializeToString())
    inner.input[:], inner.output[:] = inputs, outputs
    given = [i for i in inputs if i]
    opsets = [o for o in model.opset_import if o.domain == ""]
    function = helper.make_function(FUNCTION_DOMAIN, name, given, [o for o in outputs if o], [inner], opsets)
    model.functions.append(function)
    if FUNCTION_DOMAIN not in {o.domain for o in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(FUNCTION_DOMAIN, 1))
    call = helper.make_node(
        name, [n for n in node.input if n], [n for n in node.output if n], node.name, domain=FUNCTION_DOMAIN
    )
    node.CopyFrom(call)


def swap_addends(model: onnx.ModelProto, chance: random.Random) -> None:
    """a + b = b + a, to the bit."""
    nodes = [n for n in model.graph.node if n.op_type in ("Add", "Mul") and n.domain == ""]
    if nodes:
        node = chance.choice(nodes)
        node.input[:] = reversed(node.input)


def declare_false_shapes(model: onnx.ModelProto, chance: random.Random) -> None:
    """Sizes and ranks of inner tensors that the graph contradicts; onnxruntime computes from the graph."""
    bare = onnx.ModelProto.FromString(model.SerializeToString())
    del bare.graph.value_info[:]
    known = {v.name: v for v in onnx.shape_inference.infer_shapes(bare).graph.value_info}
    # what inference knows: a claim about anything else is believed
    names = sorted(n for n, v in known.items() if v.type.tensor_type.shape.dim and _all_known(v))
    outputs = {o for node in model.graph.node for o in node.output}
    for name in chance.sample(names, min(len(names), 3)):
        if name not in outputs:
            continue
        kept = [v for v in model.graph.value_info if v.name != name]
        del model.graph.value_info[:]
        model.graph.value_info.extend([*kept, known[name]])
        dims = model.graph.value_info[-1].type.tensor_type.shape.dim
        if chance.random() < 0.5:
            chance.choice(dims).dim_value += chance.choice((1, 2, 5))
        else:
            dims.add(dim_value=1)


def _all_known(value: onnx.ValueInfoProto) -> bool:
    return all(d.dim_value > 0 for d in value.type.tensor_type.shape.dim)


def insert_dropout(model: onnx.ModelProto, chance: random.Random) -> None:
    """A Dropout in inference mode in front of one reader of a float activation."""
    version = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    makers = {o: n for n in model.graph.node for o in n.output}
    places = [
        (index, node, position)
        for index, node in enumerate(model.graph.node)
        for position, name in enumerate(node.input)
        if name in makers and makers[name].op_type == "DequantizeLinear" and makers[name].input[0] in makers
    ]
    if not places or version < 7:
        return
    index, node, position = chance.choice(places)
    name = _fresh(model, chance)
    made = helper.make_node("Dropout", [node.input[position]], [name], f"{name}.node")
    node.input[position] = name
    model.graph.node.insert(index, made)


def write_out_quantizer(model: onnx.ModelProto, chance: random.Random) -> None:
    """A quantizer pair of an activation becomes Div, Round, Add, Clip, Sub and Mul."""
    graph = model.graph
    constants = _constants(graph)
    makers = {o: n for n in graph.node for o in n.output}
    read_once = _read_once(graph)
    pairs = [
        (makers[n.input[0]], n)
        for n in graph.node
        if n.op_type == "DequantizeLinear" and len(n.input) == 3 and n.input[0] in makers and n.input[0] in read_once
    ]
    pairs = [
        (q, dq)
        for q, dq in pairs
        if q.op_type == "QuantizeLinear"
        and list(q.input[1:]) == list(dq.input[1:])
        and q.input[0] not in constants
        and all(name in constants and constants[name].size == 1 for name in q.input[1:])
        and constants[q.input[1]].dtype == np.float32
    ]
    if not pairs:
        return
    q, dq = chance.choice(pairs)
    scale, zero = constants[q.input[1]].reshape(()), constants[q.input[2]].reshape(())
    limits = np.iinfo(zero.dtype)
    prefix = _fresh(model, chance)
    numbers = {"scale": scale, "zero": zero.astype(np.float32), "low": limits.min, "high": limits.max}
    for key, number in numbers.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(number, np.float32), f"{prefix}.{key}"))
    value, at = q.input[0], list(graph.node).index(dq)
    made = []
    for kind, read in (("Div", ["scale"]), ("Round", []), ("Add", ["zero"]), ("Clip", ["low", "high"])):
        inputs = [value, *(f"{prefix}.{key}" for key in read)]
        value = f"{prefix}.{kind}"
        made.append(helper.make_node(kind, inputs, [value], f"{value}.node"))
    made.append(helper.make_node("Sub", [value, f"{prefix}.zero"], [f"{prefix}.Sub"], f"{prefix}.Sub.node"))
    made.append(helper.make_node("Mul", [f"{prefix}.Sub", f"{prefix}.scale"], list(dq.output), f"{prefix}.Mul.node"))
    nodes = [*graph.node[:at], *made, *graph.node[at + 1 :]]
    nodes.remove(q)
    _set_nodes(graph, nodes)


def fuse_operators(model: onnx.ModelProto, chance: random.Random) -> None:
    """A layer becomes what onnxruntime's optimiser makes of it: with its Relu, where that alone reads it."""
    graph = model.graph
    read_once = _read_once(graph)
    relus = {n.input[0]: n for n in graph.node if n.op_type == "Relu" and n.input[0] in read_once}
    layers = [
        n for n in graph.node if n.op_type == "MatMul" or (n.op_type in ("Conv", "Gemm") and n.output[0] in relus)
    ]
    if not layers:
        return
    layer = chance.choice(layers)
    if layer.op_type == "MatMul":
        layer.attribute.append(helper.make_attribute("alpha", 1.0))
    else:
        relu = relus[layer.output[0]]
        layer.attribute.append(helper.make_attribute("activation", "Relu"))
        layer.output[0] = relu.output[0]
        graph.node.remove(relu)
    layer.op_type, layer.domain = f"Fused{layer.op_type}", "com.microsoft"
    if "com.microsoft" not in {o.domain for o in model.opset_import}:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


KEEP_MEANING: tuple[Mutation, ...] = (
    rename_tensors,
    shuffle_nodes,
    insert_identity,
    duplicate_pair,
    add_dead_node,
    add_dead_layer,
    add_unused_initializer,
    initializer_to_constant,
    constant_to_initializer,
    declare_shapes,
    forget_shapes,
    repack_tensors,
    into_function,
    swap_addends,
    declare_false_shapes,
    insert_dropout,
    write_out_quantizer,
    fuse_operators,
)


# -- what breaks a graph, mostly ---------------------------------------------------------------------------------------


def drop_node(model: onnx.ModelProto, chance: random.Random) -> None:
    """Its readers read what nobody makes."""
    del model.graph.node[chance.randrange(len(model.graph.node))]


def redirect_input(model: onnx.ModelProto, chance: random.Random) -> None:
    """An input is any other tensor: of another type, another shape, or one that is made later."""
    _, node, position = _edge(model, chance)
    names = [n for other in model.graph.node for n in [*other.input, *other.output]]
    node.input[position] = chance.choice([*names, "", "ghost"])


def close_cycle(model: onnx.ModelProto, chance: random.Random) -> None:
    """A node reads what is computed from it."""
    index, node, position = _edge(model, chance)
    after = {o for o in node.output if o}
    for other in model.graph.node[index + 1 :]:
        if after & reads(other):
            after |= {o for o in other.output if o}
    if after:
        node.input[position] = chance.choice(sorted(after))


def drop_input(model: onnx.ModelProto, chance: random.Random) -> None:
    """A node lacks its last input."""
    _, node, _ = _edge(model, chance)
    del node.input[-1]


def define_twice(model: onnx.ModelProto, chance: random.Random) -> None:
    """Two nodes make one tensor."""
    outputs = [n for n in model.graph.node if n.output]
    one, other = chance.choice(outputs), chance.choice(outputs)
    one.output[0] = other.output[0]


def drop_initializer(model: onnx.ModelProto, chance: random.Random) -> None:
    """A constant is gone."""
    if model.graph.initializer:
        del model.graph.initializer[chance.randrange(len(model.graph.initializer))]


def retype_attribute(model: onnx.ModelProto, chance: random.Random) -> None:
    """An attribute is of another type."""
    nodes = [n for n in model.graph.node if n.attribute]
    if nodes:
        attribute = chance.choice(chance.choice(nodes).attribute)
        made = helper.make_attribute(attribute.name, chance.choice((1.5, 3, "text", [1, 2], [0.5])))
        attribute.CopyFrom(made)


def retype_constant(model: onnx.ModelProto, chance: random.Random) -> None:
    """A constant of another type, or of one element more."""
    if not model.graph.initializer:
        return
    tensor = chance.choice(model.graph.initializer)
    array = numpy_helper.to_array(tensor)
    if chance.random() < 0.5:
        array = array.astype(chance.choice((np.float32, np.int8, np.uint8, np.int32, np.float16)))
    else:
        array = np.resize(array, (array.shape[0] + 1, *array.shape[1:]) if array.ndim else (1,))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


BREAK: tuple[Mutation, ...] = (
    drop_node,
    redirect_input,
    close_cycle,
    drop_input,
    define_twice,
    drop_initializer,
    retype_attribute,
    retype_constant,
)


def _edge(model: onnx.ModelProto, chance: random.Random) -> tuple[int, onnx.NodeProto, int]:
    """A node that reads, its place, and the position of one of its inputs."""
    edges = [(i, n, p) for i, n in enumerate(model.graph.node) for p, name in enumerate(n.input) if name]
    return chance.choice(edges)


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _read_once(graph: onnx.GraphProto) -> set[str]:
    """Tensors that one node reads, in no body, and that are no graph outputs."""
    count = Counter(name for node in graph.node for name in reads(node))
    return {name for name, times in count.items() if times == 1} - {o.name for o in graph.output}


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _fresh(model: onnx.ModelProto, chance: random.Random) -> str:
    taken = {n for node in _all_nodes(model.graph) for n in [*node.input, *node.output, node.name]}
    taken |= {t.name for t in model.graph.initializer} | {f.name for f in model.functions}
    number = len(taken)
    while any(f"new_{number}" in name for name in taken):
        number += 1
    return f"new_{number}"


def _bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
                yield from _bodies(attribute.g)


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for one in (graph, *_bodies(graph)) for node in one.node]
