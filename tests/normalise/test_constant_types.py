"""Constants of types that their operators do not take end in one error that names node and tensor."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from amct_onnx import AmctError, UnsupportedModelError, convert_qat_model
from support.written_models import write_model

TEXT = """g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 4] y) {
    q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear <axis = 0> (w, sw, zw)
    bd = DequantizeLinear <axis = 0> (b, sb, zb) c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (d, wd, bd)
    f = qonnx.custom_op.general.Quant(c, sf, zf, bits) m = MatMul(f, v) y = Add(m, a)
}"""
CONSTANTS = {
    **{"s": np.float32(0.05), "z": np.int8(1), "w": np.ones((4, 3, 3, 3), np.int8)},
    **{"sw": np.full(4, 0.02, np.float32), "zw": np.zeros(4, np.int8), "b": np.arange(4, dtype=np.int32)},
    **{"sb": np.full(4, 0.001, np.float32), "zb": np.zeros(4, np.int32)},
    **{"sf": np.float32(0.1), "zf": np.float32(0), "bits": np.float32(8)},
    **{"v": np.ones((8, 4), np.float32), "a": np.ones(4, np.float32)},
}
NEVER_TAKEN = ("STRING", "BOOL", "COMPLEX64", "COMPLEX128")
"""By any input of these operators, and not read as numbers of a foreign quantizer either, but for bool."""


def source(folder: Path, name: str, kind: str, form: str) -> Path:
    """The model with one constant of another type: an initializer, a Constant node, or behind an Identity."""
    path = write_model(folder / "m.onnx", TEXT, CONSTANTS, imports='"qonnx.custom_op.general" : 1')
    model = onnx.load(path)
    shape = np.shape(CONSTANTS[name])
    held = name if form == "initializer" else f"{name}.held"
    if kind == "STRING":
        tensor = onnx.helper.make_tensor(held, onnx.TensorProto.STRING, shape, [b"two"] * int(np.prod(shape)))
    else:
        tensor = ir.to_proto(ir.tensor(np.ones(shape).astype(ir.DataType[kind].numpy()), name=held))
    (old,) = [t for t in model.graph.initializer if t.name == name]
    model.graph.initializer.remove(old)
    if form == "node":
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=tensor))
    else:
        model.graph.initializer.append(tensor)
    if form == "identity":
        model.graph.node.insert(0, onnx.helper.make_node("Identity", [held], [name]))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("form", ["initializer", "node", "identity"])
def test_a_constant_that_holds_no_numbers_is_named(form: str, tmp_path: Path) -> None:
    for name in CONSTANTS:
        for kind in NEVER_TAKEN if form == "initializer" else NEVER_TAKEN[:1]:
            if kind == "BOOL" and name in ("sf", "zf", "bits"):
                continue  # no schema is known, and 0 and 1 are numbers
            with pytest.raises(UnsupportedModelError, match=rf"[Tt]ensor '{name}") as raised:
                convert_qat_model(source(tmp_path, name, kind, form), tmp_path / "out" / "m")
            assert re.search(r"\. Export the model again[^.]*\.$", str(raised.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("s", "INT64", "'q' .*'s' of type INT64 as its 'y_scale'; the operator takes bfloat16, float, float16"),
        ("sw", "DOUBLE", "'wd' .*'sw' of type DOUBLE as its 'x_scale'; the operator takes bfloat16, float, float16"),
        ("z", "FLOAT", "'q' .*'z' of type FLOAT as its 'y_zero_point'; the operator takes .*uint8"),
        ("w", "FLOAT", "'wd' .*'w' of type FLOAT as its 'x'; the operator takes .*uint8"),
        ("w", "INT16", "'wd' .*'w' of type INT16 and 'zw' of type INT8; the operator takes both of one type"),
        ("zb", "INT8", "'bd' .*'b' of type INT32 and 'zb' of type INT8; the operator takes both of one type"),
        ("v", "INT8", "'m' .*'v' of type INT8 as its 'B'; the operator takes .*float"),
    ],
)
def test_numbers_of_a_type_that_the_operator_does_not_take(name: str, kind: str, says: str, tmp_path: Path) -> None:
    path = source(tmp_path, name, kind, "initializer")
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError, match=says):
        convert_qat_model(path, tmp_path / "out" / "m")


@pytest.mark.slow
@pytest.mark.parametrize("name", CONSTANTS)
def test_no_type_ends_in_a_traceback(name: str, tmp_path: Path) -> None:
    """Of every type that onnx-ir has: converted, or one of our errors."""
    for kind in ir.DataType:
        if kind == ir.DataType.UNDEFINED:
            continue
        for form in ("initializer", "node", "identity"):
            try:
                convert_qat_model(source(tmp_path, name, kind.name, form), tmp_path / "out" / "m")
            except AmctError as error:
                assert name in str(error) or "quantizes to" in str(error)
