"""A layer that the models write as several nodes is compared by what the last of them gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import amct_onnx
from support.comparison_cases import Case, as_of_other_code
from support.deploy_models import initializer, node, set_initializer
from support.written_models import write_model

PAIRS = "q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) "
PAIRS += "p = QuantizeLinear(b, s, z) e = DequantizeLinear(p, s, z)"
FORMS = {"two activations with an offset": ("float", f"{PAIRS} y = Gemm<alpha = 2.0, transB = 1>(d, e)")}
FORMS |= {kind: (kind, "y = Gemm<alpha = 2.0, transB = 1>(a, b)") for kind in ("float", "float16")}


def with_alpha(form: str, folder: Path) -> Case:
    kind, gemm = FORMS[form]
    text = f"""g (float[n, 6] x, {kind}[3, 6] a, {kind}[4, 6] b) => (float[n, 6] u, {kind}[3, 4] y) {{
        i = QuantizeLinear(x, s, z) u = DequantizeLinear(i, s, z) {gemm} }}"""
    path = write_model(folder / "m.onnx", text, {"s": np.float32(0.05), "z": np.int8(3)})
    case = Case(path, folder / "m", folder / "data.npz", folder / "labels.npy")
    amct_onnx.convert_qat_model(path, case.prefix)
    rng, dtype = np.random.default_rng(3), np.float32 if kind == "float" else np.float16
    shapes = {"a": (3, 6), "b": (4, 6)}
    feeds = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    np.savez(case.data, x=rng.normal(size=(2, 6)).astype(np.float32), **feeds)
    return case


@pytest.mark.parametrize("form", FORMS)
def test_alpha_that_became_a_mul_is_no_fault(form: str, tmp_path: Path) -> None:
    case = with_alpha(form, tmp_path)
    ledger = json.loads(Path(f"{case.prefix}_quant.json").read_text(encoding="utf-8"))
    (layer,) = ledger["layers"]
    assert layer["deploy_nodes"] == [layer["name"], f"{layer['name']}.alpha"]
    assert set(layer["deploy_nodes"]) <= set(layer["fake_quant_nodes"])
    found = case.compare(batch_size=0)
    assert found.verdict.level in ("equal", "noise") and not found.divergences
    assert found.layers[0].compared


def test_another_factor_in_the_place_of_alpha_is_a_fault_of_its_gemm(tmp_path: Path) -> None:
    case = with_alpha("float", tmp_path)
    model = onnx.load(case.deploy)
    gemm = next(n.name for n in model.graph.node if n.op_type == "Gemm")
    factor = node(model, f"{gemm}.alpha").input[1]
    set_initializer(model, factor, numpy_helper.to_array(initializer(model, factor)) / np.float32(2))
    onnx.save(model, case.deploy)
    as_of_other_code(Path(f"{case.prefix}_quant.json"))
    (fault,) = [d for d in case.compare(batch_size=0).divergences if d.is_fault]
    assert (fault.model, fault.layer, fault.cause) == ("deploy@a2", gemm, "scale-fault")
