"""A model whose claims and attributes were changed: where the source runs, the fake-quant model gives its numbers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError

import amct_onnx
from amct_onnx.device.session import DeploySession
from amct_onnx.errors import AmctError
from oracle import Finding, Sandbox

MAX_SHARE = 0.25
"""RMS of the difference as a share of the source's. Rounded biases and ties move single steps of 256; a wrong axis,
padding, operator or type moves most of the numbers by their own size."""
MAX_ELEMENTS = 1 << 16
SIZES = (1, 2, 3, 4, 5, 8, 16)
DIMENSION = 3
"""For a size that the model leaves open."""
KINDS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int64)": np.int64,
}


def mutate(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """One to four changes of declared shapes and types, axes, attributes or the version of the default domain."""
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        return content
    for _ in range(chance.randint(1, 4)):
        try:
            chance.choice((declare, declare, change_number, change_axis, drop_attribute))(model, chance)
        except IndexError:  # nothing there to change
            continue
    return model.SerializeToString()


def declare(model: onnx.ModelProto, chance: random.Random) -> None:
    """A false shape or element type of an inner tensor, on top of what inference knows."""
    names = [o for n in model.graph.node for o in n.output if o]
    name = chance.choice(names)
    known = {v.name: v for v in model.graph.value_info}
    if name not in known:
        known[name] = model.graph.value_info.add(name=name)
        known[name].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    kind = known[name].type.tensor_type
    if chance.random() < 0.2:
        kind.elem_type = chance.choice((1, 3, 2, 6, 7, 10))
    if chance.random() < 0.3 or not kind.shape.dim:
        del kind.shape.dim[:]
        for _ in range(chance.randint(0, 5)):
            kind.shape.dim.add(dim_value=chance.choice(SIZES))
    else:
        chance.choice(kind.shape.dim).dim_value = chance.choice(SIZES)


def change_number(model: onnx.ModelProto, chance: random.Random) -> None:
    """Another number in an attribute that is one, or a list of them."""
    node = chance.choice(model.graph.node)
    attribute = chance.choice(node.attribute)
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = chance.choice((-1, 0, 1, 2, 3))
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = chance.choice((0.5, 2.0, 1.0, 0.25))
    elif attribute.ints:
        attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice((0, 1, 2, 3))


def change_axis(model: onnx.ModelProto, chance: random.Random) -> None:
    """The axis of a quantizer or of another node."""
    node = chance.choice([n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear", "Concat")])
    kept = [a for a in node.attribute if a.name != "axis"]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("axis", chance.randrange(-2, 3))])


def drop_attribute(model: onnx.ModelProto, chance: random.Random) -> None:
    """The default takes its place; or padding is asked for by its name."""
    node = chance.choice([n for n in model.graph.node if n.attribute])
    dropped = chance.choice(node.attribute).name
    kept = [a for a in node.attribute if a.name != dropped]
    del node.attribute[:]
    node.attribute.extend(kept)
    if dropped == "pads" and chance.random() < 0.7:
        mode = chance.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
        node.attribute.append(onnx.helper.make_attribute("auto_pad", mode))


def run(sandbox: Sandbox, content: bytes) -> None:
    """Convert, and hold the numbers of fake-quant and deploy model to each other and to the source."""
    model = sandbox.place("in/model.onnx", content)
    report = amct_onnx.convert_qat_model(model, sandbox.target / "m", sandbox.target / "record.txt")
    source = _session(model)
    if source is None:
        return
    feeds = _feeds(source)
    wanted = _outputs(source, feeds) if feeds is not None else None
    if feeds is None or wanted is None:
        return
    fake = _session(report.fake_quant_model)
    if fake is None:
        raise Finding("onnxruntime loads the model but not the fake-quant model")
    given = _outputs(fake, feeds)
    if given is None:
        raise Finding("onnxruntime runs the model but not the fake-quant model")
    _same(wanted, given, [o.name for o in source.get_outputs()])
    try:
        with DeploySession(report.deploy_model) as session:
            deploy = session.run(None, feeds)
    except AmctError:  # it may hold what has no public arithmetic
        return
    if not all(_equal(a, b) for a, b in zip(given, deploy, strict=True)):
        raise Finding("the deploy model's numbers are not those of the fake-quant model")


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray):
        return True
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _same(wanted: list[Any], given: list[Any], names: list[str]) -> None:
    for one, other, name in zip(wanted, given, names, strict=True):
        if not isinstance(one, np.ndarray) or one.dtype.kind not in "fiu":
            continue
        if one.shape != other.shape:
            raise Finding(f"output '{name}' has shape {one.shape} in the source, {other.shape} in the fake-quant model")
        left, right = one.astype(np.float64), other.astype(np.float64)
        if one.dtype == np.uint8 and other.dtype == np.int8:
            right += 128
        finite = np.isfinite(left) & np.isfinite(right)
        size = np.sqrt(np.mean(left[finite] ** 2)) if np.any(finite) else 0.0
        error = np.sqrt(np.mean((left - right)[finite] ** 2)) if np.any(finite) else 0.0
        if error > MAX_SHARE * size + 1e-6 and one.dtype.kind == "f":
            raise Finding(f"output '{name}' differs by {error:.3g} RMS from the source's {size:.3g}")


def _session(path: str | Path) -> ort.InferenceSession | None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's classes have no common base of their own
        return None


def _feeds(session: ort.InferenceSession) -> dict[str, np.ndarray] | None:
    random_numbers = np.random.default_rng(0)
    feeds = {}
    for each in session.get_inputs():
        shape = [d if isinstance(d, int) and d > 0 else DIMENSION for d in each.shape]
        if each.type not in KINDS or int(np.prod(shape)) > MAX_ELEMENTS:
            return None
        kind = np.dtype(KINDS[each.type])
        numbers = random_numbers.normal(size=shape) if kind.kind == "f" else random_numbers.integers(0, 2, shape)
        feeds[each.name] = np.asarray(numbers, kind)
    return feeds


def _outputs(session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> list[Any] | None:
    try:
        return list(session.run(None, feeds))
    except Exception:  # shapes that do not fit each other
        return None
