"""Attributes of foreign deploy files: missing, of another type, odd. The simulation reads them as ATC's plugins do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import AttributeProto, helper

from amct_onnx import DeploySession, UnsupportedModelError, check
from amct_onnx.device import ascend_arithmetic as rules
from support.device_models import F32, antiquant, dequant, model, packed, quant

RANDOM = np.random.default_rng(7)
WEIGHT = RANDOM.integers(-128, 128, (32, 16)).astype(np.int8)
X = RANDOM.normal(0, 2, (3, 32)).astype(np.float32)
SCALE, OFFSET, STEP, DEQ = 25.0, 9, 0.04, 0.001
ONE_THREAD = ort.SessionOptions()
ONE_THREAD.intra_op_num_threads = 1
MISSING = "missing"
ODD: dict[str, tuple[Any, ...]] = {
    "FLOAT": (0.0, 1.0, -3.0, 0.5, float("nan"), float("inf"), 200.0),
    "INT": (0, 1, -7, 27, 2**40),
    "STRING": ("", "INT8", "UINT8", "INT4  ", "INT16", "Round", "Floor"),
    "FLOATS": ((9.0,),),
    "INTS": ((1,),),
    "STRINGS": (("INT8",),),
}
VALUES = [MISSING, *((kind, value) for kind, values in ODD.items() for value in values)]
READ_AS = {
    ("AscendQuant", "scale"): "FLOAT",
    ("AscendQuant", "offset"): "FLOAT",
    ("AscendQuant", "dst_type"): "STRING",
    ("AscendQuant", "round_mode"): "STRING",
    ("AscendQuant", "sqrt_mode"): "INT",
    ("AscendDequant", "dtype"): "INT",
    ("AscendDequant", "sqrt_mode"): "INT",
    ("AscendDequant", "relu_flag"): "INT",
    ("AscendAntiQuant", "scale"): "FLOAT",
    ("AscendAntiQuant", "offset"): "FLOAT",
    ("AscendAntiQuant", "dtype"): "INT",
    ("AscendAntiQuant", "sqrt_mode"): "INT",
}
OPTIONAL = ("dst_type", "round_mode", "sqrt_mode", "dtype", "relu_flag")
"""Attributes that may be missing."""


def foreign(op_type: str, name: str, value: Any) -> bytes:
    """AscendQuant -> MatMul -> AscendDequant, and AscendAntiQuant; one attribute of one operator is another."""
    nodes = [
        quant("x", "q", SCALE, OFFSET),
        helper.make_node("MatMul", ["q", "w"], ["m"], "layer"),
        dequant("m", "y"),
        antiquant("q", "z", STEP, OFFSET),
    ]
    (node,) = [n for n in nodes if n.op_type == op_type]
    kept = [a for a in node.attribute if a.name != name]
    if value != MISSING:
        kind, content = value
        kept.append(helper.make_attribute(name, content, attr_type=getattr(AttributeProto, kind)))
    del node.attribute[:]
    node.attribute.extend(kept)
    return model(nodes, {"x": (F32, [3, 32])}, {"y": F32, "z": F32}, {"w": WEIGHT, "deq": packed(DEQ)})


def read(content: bytes, op_type: str, name: str, default: Any) -> Any:
    """An attribute as the plugin reads it: the default when it is missing or of another type than the default's."""
    kinds = {float: AttributeProto.FLOAT, int: AttributeProto.INT, str: AttributeProto.STRING}
    for node in onnx.load_model_from_string(content).graph.node:
        for attribute in node.attribute:
            if node.op_type == op_type and attribute.name == name and attribute.type == kinds[type(default)]:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(default, str) else value
    return default


def meant(content: bytes) -> dict[str, np.ndarray] | None:
    """What ATC makes of the model, by the formulas of ``arithmetic``; None for what is not simulated."""
    scale, offset = (read(content, "AscendQuant", n, 0.0) for n in ("scale", "offset"))
    step, back = (read(content, "AscendAntiQuant", n, 0.0) for n in ("scale", "offset"))
    if not all(0 < s < np.inf for s in (scale, step)) or not {offset, back} <= set(range(-128, 128)):
        return None
    kind, mode = (read(content, "AscendQuant", n, d) for n, d in (("dst_type", ""), ("round_mode", "Round")))
    types = [read(content, op, "dtype", 0) for op in ("AscendDequant", "AscendAntiQuant")]
    if kind.rstrip(" ") in ("INT4", "INT16") or mode != "Round" or not set(types) <= {0, 1}:
        return None

    def flag(op_type: str, name: str) -> bool:
        return bool(read(content, op_type, name, 0))

    q = rules.quantize_float32(X, scale, int(offset), flag("AscendQuant", "sqrt_mode")).astype(np.int8)
    sums = ((q.astype(np.int64) - int(offset)) @ WEIGHT.astype(np.int64)).astype(np.int32)
    flags = [flag("AscendDequant", n) for n in ("sqrt_mode", "relu_flag")]
    y = rules.dequantize_float32(sums, np.float32(DEQ), *flags)
    z = rules.antiquantize_float32(q, step, int(back), flag("AscendAntiQuant", "sqrt_mode"))
    with np.errstate(over="ignore"):
        return {n: v.astype(np.float16 if t else np.float32) for n, v, t in zip("yz", (y, z), types, strict=True)}


@pytest.mark.parametrize(("op_type", "name"), READ_AS)
def test_the_simulation_reads_what_atc_reads(op_type: str, name: str) -> None:
    usual = foreign(op_type, "none", MISSING)
    for value in VALUES:
        content = foreign(op_type, name, value)
        expected = meant(content)
        if expected is None:
            with pytest.raises(UnsupportedModelError, match=rf"'[qyz]\.\w+' ?.*{name}"):
                DeploySession(content)
            continue
        with DeploySession(content, ONE_THREAD) as session:
            for found, (label, wanted) in zip(session.run(None, {"x": X}), expected.items(), strict=True):
                assert found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes(), (value, label)
            lost = name == "offset" and op_type != "AscendDequant" and value != MISSING and value[0] != "FLOAT"
            assert any("its offset is stored as" in w for w in session.warnings) == lost, value
    assert meant(usual) is not None


@pytest.mark.parametrize(("op_type", "name"), READ_AS)
def test_check_reports_what_is_out_of_form(op_type: str, name: str) -> None:
    def findings(content: bytes) -> set[tuple[str, str]]:
        Path("m.onnx").write_bytes(content)
        return {(f.rule, f.node) for f in check("m.onnx").findings}

    usual = findings(foreign(op_type, "none", MISSING))
    for value in [MISSING, *((kind, values[0]) for kind, values in ODD.items())]:
        new = findings(foreign(op_type, name, value)) - usual
        if value == MISSING:
            assert bool(new) == (name not in OPTIONAL), value
        elif value[0] != READ_AS[op_type, name]:
            assert new, value
