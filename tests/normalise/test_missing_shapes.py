"""Shapes that no value_info declares: the axis of a channel is known, or nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_onnx import DeploySession, convert_qat_model
from amct_onnx.errors import UnsupportedModelError
from support.deploy_evaluator import run
from support.written_models import Array, convert_and_compare, operators, write_model

LAYER = "x0 = Relu(x) q = QuantizeLinear(x0, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear(w, sw)"


def constants() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (6, 6)).astype(np.int8)
    return {"s": np.float32(0.05), "z": np.int8(3), "w": weight, "sw": np.float32(0.01)}


def feeds(*shape: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}


def test_batch_normalization_of_another_axis_than_the_channels(tmp_path: Path) -> None:
    """As many rows as channels: only the rank tells that BatchNormalization belongs to the rows."""
    text = f"""g (float[n, 6, 6] x) => (float[n, 6, 6] y) {{
        {LAYER} t = MatMul(d, wd) y = BatchNormalization(t, g, b, m, v) }}"""
    norm = {k: np.random.default_rng(2).uniform(0.1, 2, 6).astype(np.float32) for k in "gbmv"}
    path = write_model(tmp_path / "m.onnx", text, constants() | norm)
    report, deploy = convert_and_compare(path, feeds(2, 6, 6), units=0)
    assert len(report.converted) == 1 and "BatchNormalization" in operators(deploy)


@pytest.mark.parametrize("shape", [(), (6,), (1, 6)])
def test_bias_of_a_vector(shape: tuple[int, ...], tmp_path: Path) -> None:
    """A bias of two axes would turn the vector into a matrix, in the source as well."""
    dims = ", ".join(map(str, shape if len(shape) == 2 else (6,)))
    text = f"g (float[6] x) => (float[{dims}] y) {{ {LAYER} t = MatMul(d, wd) y = Add(t, b) }}"
    # a multiple of scale_d * scale_w, so that nothing is rounded
    bias = np.full(shape, 4 * np.float32(0.05) * np.float32(0.01), np.float32)
    path = write_model(tmp_path / "m.onnx", text, constants() | {"b": bias})
    report, _ = convert_and_compare(path, feeds(6), units=0)
    assert len(report.converted) == 1
    assert run(report.deploy_model.replace("deploy", "fake_quant"), feeds(6))["y"].ndim == max(len(shape), 1)


def without_shape(path: Path) -> Path:
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, str(path))
    return path


def test_of_an_unknown_rank_the_last_axis_is_known(tmp_path: Path) -> None:
    text = f"g (float[6, 6] x) => (float[6, 6] y) {{ {LAYER} t = MatMul(d, wd) u = Add(b, t) y = Add(u, k) }}"
    step = np.float32(0.05) * np.float32(0.01)
    extra = {"b": (np.arange(6) * step).astype(np.float32), "k": np.ones((1, 6), np.float32)}
    path = without_shape(write_model(tmp_path / "m.onnx", text, constants() | extra))
    report, deploy = convert_and_compare(path, feeds(3, 2, 6), units=0)
    assert operators(deploy) == ["Relu", "AscendQuant", "MatMul", "Add", "AscendDequant", "Add"]


PER_CHANNEL = """x0 = Relu(x) q = QuantizeLinear <axis = 1> (x0, sp, zp) d = DequantizeLinear <axis = 1> (q, sp, zp)
    wd = DequantizeLinear(w, sw) y = MatMul(d, wd)"""


def per_channel(folder: Path) -> Path:
    factors = {"sp": np.linspace(0.01, 0.1, 6, dtype=np.float32), "zp": np.arange(6).astype(np.int8)}
    own = {k: v for k, v in constants().items() if k in ("w", "sw")}
    graph = f"g (float[n, 6, 6] x) => (float[n, 6, 6] y) {{ {PER_CHANNEL} }}"
    return write_model(folder / "m.onnx", graph, own | factors)


def test_per_channel_quantizer_of_an_undeclared_tensor(tmp_path: Path) -> None:
    report, _ = convert_and_compare(per_channel(tmp_path), feeds(2, 6, 6), units=0)
    assert [e.reason for e in report.refused] == ["activation-per-channel"]


def test_per_channel_quantizer_of_an_unknown_rank_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="along axis 1, and the rank of its tensor 'x0' is unknown"):
        convert_qat_model(without_shape(per_channel(tmp_path)), tmp_path / "m")


@pytest.mark.parametrize(("kind", "opset"), [("float", 17), ("float16", 19)])
@pytest.mark.parametrize(
    "between",
    [
        "s = SequenceConstruct(x, a) t = Identity(s) e = SequenceAt(t, i)",
        "s = SplitToSequence <axis = 1, keepdims = 1> (a) e = ConcatFromSequence <axis = 1> (s)",
        "s = Optional(a) e = OptionalGetElement(s)",
    ],
)
def test_what_is_no_tensor_gets_no_type_of_a_tensor(between: str, kind: str, opset: int, tmp_path: Path) -> None:
    """A sequence that was declared a tensor made a fake-quant model that onnxruntime refused."""
    dtype = np.dtype(np.float16 if kind == "float16" else np.float32)
    held = {"h": dtype.type(0.05), "z": np.int8(3), "w": constants()["w"], "k": dtype.type(1.37), "i": np.int64(1)}
    layer = "q = QuantizeLinear(x, h, z) d = DequantizeLinear(q, h, z) wd = DequantizeLinear(w, h) m = MatMul(d, wd)"
    x = {"x": feeds(2, 6)["x"].astype(dtype)}
    results = []
    for middle in (between, "e = Identity(a)"):
        nodes = f"{layer} a = Mul(m, k) {middle} f = Mul(e, k) y = Add(f, k)"
        used = {name: array for name, array in held.items() if name != "i" or "i)" in middle}
        path = write_model(
            tmp_path / "m.onnx", f"g ({kind}[2, 6] x) => ({kind}[2, 6] y) {{ {nodes} }}", used, opset=opset
        )
        report = convert_qat_model(path, tmp_path / "out" / "m")
        assert len(report.converted) == 1
        (fake,) = run(report.fake_quant_model, x).values()
        (deploy,) = DeploySession(report.deploy_model).run(None, x)
        assert fake.dtype == dtype and np.array_equal(fake, deploy)
        results.append(fake)
    assert np.array_equal(*results)
