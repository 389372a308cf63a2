"""What Ascend operators hold is held against the ledger at the right operand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from amct_onnx import compare, convert_qat_model
from support.written_models import write_model

RNG = np.random.default_rng(0)
SCALES = {"s": np.float32(0.03), "t": np.float32(1 / 127), "z": np.int8(0)}
BODY = (
    "q = QuantizeLinear(b, s, z) d = DequantizeLinear(q, s, z) n = Neg(d) "
    "m = Softmax<axis=-1>(a) r = QuantizeLinear(m, t, z) e = DequantizeLinear(r, t, z) y = MatMul(e, d)"
)
"""The second operand is quantized in front of the first, as values in a cache are, which others read."""


def test_second_operand_may_be_quantized_in_front_of_the_first(tmp_path: Path) -> None:
    text = f"g (float[1, 4, 5] a, float[1, 5, 4] b) => (float[1, 4, 4] y, float[1, 5, 4] n) {{ {BODY} }}"
    path = write_model(tmp_path / "m.onnx", text, SCALES)
    (layer,) = convert_qat_model(path, tmp_path / "m").converted
    assert (layer.scale_d, layer.second_scale_d) == (SCALES["t"], SCALES["s"])
    data = {n: RNG.normal(size=shape).astype(np.float32) for n, shape in {"a": (1, 4, 5), "b": (1, 5, 4)}.items()}
    found = compare(path, tmp_path / "m", data, batch_size=0)
    assert found.verdict.level in ("equal", "noise"), found.verdict
