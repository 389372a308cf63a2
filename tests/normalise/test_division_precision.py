"""QuantizeLinear that divides in another type than its scale's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.older_libraries import needs_opset
from support.written_models import write_model


@pytest.mark.parametrize(("precision", "told"), [(10, 1), (1, 0), (0, 0)])
def test_a_division_in_another_type_is_named(precision: int, told: int, tmp_path: Path) -> None:
    needs_opset(23)
    text = f"""g (float[1, 8] x) => (float y) {{
        [first] q = QuantizeLinear <precision = {precision}> (x, s, z)
        d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, s) y = MatMul(d, e)
    }}"""
    weight = np.arange(-16, 16, dtype=np.int8).reshape(8, 4)
    path = write_model(
        tmp_path / "m.onnx", text, {"s": np.float32(0.05), "z": np.int8(3), "w": weight}, opset=23, ir_version=11
    )
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert sum("'first' (QuantizeLinear) divides in FLOAT16" in w for w in report.warnings) == told


@pytest.mark.parametrize(("stated", "told"), [(10, 1), (1, 0), (0, 0)])
def test_numbers_of_another_type_than_the_scale_are_named(stated: int, told: int, tmp_path: Path) -> None:
    needs_opset(23)
    text = f"""g (float[1, 8] x) => (float y) {{
        q = QuantizeLinear (x, s, z) [first] d = DequantizeLinear <output_dtype = {stated}> (q, s, z)
        f = Cast <to = 1> (d) e = DequantizeLinear(w, s) y = MatMul(f, e)
    }}"""
    weight = np.arange(-16, 16, dtype=np.int8).reshape(8, 4)
    path = write_model(
        tmp_path / "m.onnx", text, {"s": np.float32(0.05), "z": np.int8(3), "w": weight}, opset=23, ir_version=11
    )
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert sum("'first' (DequantizeLinear) gives FLOAT16" in w for w in report.warnings) == told
