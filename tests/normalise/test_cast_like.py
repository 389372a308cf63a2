"""CastLike by the type of what it copies, declared or inferred; a bias may hang on an activation by its type alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from amct_onnx.normalise.cast_like import spell_out_cast_like
from support.written_models import convert_and_compare, write_model

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("declared", [True, False])
def test_zero_bias_of_the_activations_type_is_constant(declared: bool, tmp_path: Path) -> None:
    """As torch's exporter writes a Conv without bias when nothing optimises the graph."""
    hint = "<float[1, 3, 6, 6] d>" if declared else ""
    text = f"""g (float[1, 3, 6, 6] x) => (float[1, 4, 4, 4] y) {hint} {{
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear <axis = 0> (w, sw)
        size = Shape <end = 1> (wd) none = Constant <value = double {{0}}> () zero = CastLike(none, d)
        b = Expand(zero, size) y = Conv(d, wd, b)
    }}"""
    constants = {
        "s": np.float32(0.03),
        "z": np.int8(4),
        "w": RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "sw": np.float32([0.01, 0.02, 0.03, 0.04]),
    }
    path = write_model(tmp_path / "m.onnx", text, constants)
    report, deploy = convert_and_compare(path, {"x": RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)}, units=0)
    assert len(report.converted) == 1
    assert "CastLike" not in {n.op_type for n in deploy.graph.node}


def test_a_type_that_nobody_knows_stays() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
    g (float[2] x) => (float[2] y) { u = mine.Unknown(x) c = CastLike(x, u) y = mine.Unknown(c) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    spell_out_cast_like(model)
    assert [n.op_type for n in model.graph] == ["Unknown", "CastLike", "Unknown"]
