"""Asymmetric weights beyond int8: refused, or int8 and the sum of the layer's input."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_onnx import DeploySession
from amct_onnx.errors import SettingError
from amct_onnx.plan.settings import PlanSettings
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.deploy_evaluator import Evaluator, run
from support.forced_source import ForcedSource
from support.golden_models import MODELS
from support.qdq_builder import QdqBuilder

SUM = PlanSettings(asymmetric_weights="sum")


def agree(source: Path, folder: Path, feeds: dict[str, np.ndarray], **choices: Any) -> Any:
    """Convert with sums: fake-quant = deploy bit for bit, the source within bias rounding of it; the report."""
    report = convert_qat_model(source, folder / "m", asymmetric_weights="sum", **choices)
    assert report.check is not None and report.check.passed
    fake = run(report.fake_quant_model, feeds)
    deploy = Evaluator(report.deploy_model).run(feeds)
    with DeploySession(report.deploy_model) as session:
        simulated = dict(zip(deploy, session.run(list(deploy), feeds), strict=True))
    for name, values in fake.items():
        assert np.array_equal(values, deploy[name]) and np.array_equal(values, simulated[name]), name
    planned = PlanSettings(asymmetric_weights="sum", **choices)
    assert ForcedSource(source, Path(report.fake_quant_model), planned).compare(feeds)["layers"] == len(
        report.converted
    )
    return report


@pytest.mark.parametrize(
    ("name", "converted", "reasons"),
    [
        ("ort_digitsnet_qdq_u8u8_pt", 6, {"weight-asymmetric"}),  # a depthwise layer stays float
        ("ort_digitstf_qdq_u8u8_pt", 8, {"activation-offset"}),
        ("ort_mlp3d_qdq_u8u8_pt", 4, set()),
        (
            "tf1contrib_digitsnet_op13",
            3,
            {"activation-not-quantized", "weight-not-quantized", "weight-asymmetric"},
        ),
    ],
)
def test_real_models(name: str, converted: int, reasons: set[str], tmp_path: Path) -> None:
    with np.load(MODELS / name / "inputs.npz") as data:
        feeds = {k: data[k] for k in data.files}
    report = agree(MODELS / name / "model.onnx", tmp_path, feeds)
    assert len(report.converted) == converted
    assert {e.reason for e in report.refused} == reasons
    # the ledger names the nodes of the sum with those of its layer
    summing = [e for e in report.converted if f"{e.name}.sum" in e.deploy_nodes]
    assert summing and all("shifted" in e.detail for e in summing)
    assert json.loads(Path(report.ledger_file).read_text())["summary"] == report.summary()


LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "Conv": ((2, 6, 7, 7), (5, 6, 3, 3), {"pads": [1, 1, 0, 1], "strides": [2, 1]}),
    "Conv 1-D": ((2, 6, 9), (5, 6, 3), {"pads": [2, 0]}),
    "ConvTranspose": ((1, 6, 5, 5), (6, 4, 3, 3), {"strides": [2, 2], "output_padding": [1, 0]}),
    "Gemm": ((3, 6), (6, 5), {}),
    "Gemm transB": ((3, 6), (5, 6), {"transB": 1}),
    "MatMul": ((2, 3, 6), (6, 5), {}),
}
"""Case -> shape of the input and of the weight, attributes."""


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    case=st.sampled_from(sorted(LAYERS)),
    per_channel=st.booleans(),
    zero=st.integers(0, 255),
    offset=st.integers(-128, 127),
    bias=st.booleans(),
    norm=st.booleans(),
    vector=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_every_layer_and_range(
    case: str, per_channel: bool, zero: int, offset: int, bias: bool, norm: bool, vector: bool, seed: int
) -> None:
    op_type = case.split()[0]
    x_shape, w_shape, attributes = LAYERS[case]
    axis = 0 if op_type == "Conv" or attributes.get("transB") else 1
    channels = w_shape[axis]
    rng = np.random.default_rng(seed)
    size = (channels,) if per_channel else ()
    build = QdqBuilder()
    x = build.activation(build.input("x", x_shape), 0.05, np.asarray(offset, np.int8))
    zeros = np.broadcast_to(np.asarray([zero, 0, 255, 128, 130], np.uint8)[:channels] if per_channel else zero, size)
    factor = rng.uniform(0.001, 0.02, size).astype(np.float32)
    integers = rng.integers(0, 256, w_shape).astype(np.uint8)
    w = build.weight(integers, factor, axis if per_channel else None, zeros.astype(np.uint8))
    inputs = [x, w]
    if bias and op_type != "MatMul":
        inputs.append(build.constant(rng.normal(size=channels).astype(np.float32)))
    y = build.node(op_type, inputs, "layer", **attributes)
    if norm and op_type.startswith("Conv"):
        numbers = rng.normal(size=(3, channels))
        y = build.node(
            "BatchNormalization",
            [y, *(build.constant(n.astype(np.float32)) for n in (*numbers, np.abs(rng.normal(size=channels)) + 0.1))],
        )
    build.output(y, shape=[None] * len(x_shape))
    feeds = {"x": rng.normal(scale=3, size=x_shape).astype(np.float32)}
    with TemporaryDirectory() as folder:
        report = agree(build.save(Path(folder)), Path(folder), feeds, gemm_per_channel="vector" if vector else "mul")
        assert len(report.converted) == 1
        deploy = onnx.load(report.deploy_model)
    less_zero = integers.astype(int) - zeros.reshape(
        [-1 if a == axis else 1 for a in range(len(w_shape))] if size else ()
    )
    wide = less_zero.min() < -128 or less_zero.max() > 127
    assert any(n.name == "layer.sum" for n in deploy.graph.node) == wide


def test_default_is_refusal_and_says_how_to_convert(tmp_path: Path) -> None:
    report = convert_qat_model(MODELS / "ort_mlp3d_qdq_u8u8_pt" / "model.onnx", tmp_path / "m")
    assert {e.reason for e in report.refused} == {"weight-asymmetric"}
    assert all("asymmetric_weights 'sum'" in e.remedy for e in report.refused)


def test_unknown_choice_is_named() -> None:
    with pytest.raises(SettingError, match="asymmetric_weights is 'split'"):
        convert_qat_model("m.onnx", "m", asymmetric_weights="split")
