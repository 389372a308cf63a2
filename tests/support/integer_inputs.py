"""Changes a model so that its inputs are the integers that enter DequantizeLinear, and its feeds with it."""

from __future__ import annotations

import random

import numpy as np
import onnx
from onnx import helper, numpy_helper

from support.random_graphs import reads

Feeds = dict[str, np.ndarray]


def integer_inputs(
    model: onnx.ModelProto, feeds: Feeds, chance: random.Random
) -> tuple[onnx.ModelProto, Feeds, Feeds] | None:
    """Take the quantizer of some graph inputs away; None where no input has one quantizer alone.

    Returns:
        The changed model, its feeds, and those of the model as it was: the floats that the integers stand for. On
        them a quantizer gives the integers back, whether it divides or multiplies by 1 / scale.
    """
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    graph = changed.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    candidates = [v for v in graph.input if v.name in feeds and _quantizer(graph, v.name, constants) is not None]
    if not candidates:
        return None
    integers, floats = dict(feeds), dict(feeds)
    for value in chance.sample(candidates, chance.randint(1, len(candidates))):
        node = _quantizer(graph, value.name, constants)
        assert node is not None
        scale, zero = (constants[n].reshape(()) for n in node.input[1:])
        limits = np.iinfo(zero.dtype)
        steps = np.clip(np.rint(feeds[value.name] / scale) + int(zero), limits.min, limits.max)
        integers[value.name] = steps.astype(zero.dtype)
        floats[value.name] = ((steps - int(zero)).astype(np.float32) * scale).astype(np.float32)
        for other in graph.node:
            other.input[:] = [value.name if n == node.output[0] else n for n in other.input]
        graph.node.remove(node)
        kept = [v for v in graph.value_info if v.name != node.output[0]]
        del graph.value_info[:]
        graph.value_info.extend(kept)
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(zero.dtype)
    return changed, integers, floats


def _quantizer(graph: onnx.GraphProto, name: str, constants: Feeds) -> onnx.NodeProto | None:
    """The per-tensor QuantizeLinear to 8 bits that alone reads a float32 input; only DequantizeLinear reads it."""
    readers = [n for n in graph.node if name in reads(n)]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear" or len(readers[0].input) != 3:
        return None
    node = readers[0]
    if any(n not in constants or constants[n].size != 1 for n in node.input[1:]):
        return None
    scale, zero = (constants[n] for n in node.input[1:])
    behind = [n for n in graph.node if node.output[0] in reads(n)]
    plain = all(n.op_type == "DequantizeLinear" and list(n.input[1:]) == list(node.input[1:]) for n in behind)
    bytes_wide = zero.dtype in (np.int8, np.uint8) and scale.dtype == np.float32
    return node if plain and behind and bytes_wide and node.output[0] not in {o.name for o in graph.output} else None
