"""Convolutions in onnxruntime's blocked layout give the integers of the evaluator, and run where they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from amct_onnx.device.lowered_session import LoweredSession
from amct_onnx.device.lowering import blocked_layout
from amct_onnx.device.lowering.lower import lower
from amct_onnx.device.profiles import PROFILES
from amct_onnx.device.session import DeploySession
from amct_onnx.files.read import read_model
from support.deploy_evaluator import Evaluator
from support.device_models import F32, I32, model, quant

SIZE = blocked_layout.block_size()
STEP = SIZE or 8
"""Channels that a block may have, where there is none."""


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], bool]:
    """(weight's shape, input's shape, attributes, whether the channels fit the layout)."""
    form = draw(st.sampled_from(["whole", "few inputs", "depthwise", "grouped", "odd outputs", "odd inputs"]))
    wide = STEP * draw(st.integers(1, 3))
    group, inputs, outputs = 1, wide, STEP * draw(st.integers(1, 2))
    if form == "few inputs":
        inputs = draw(st.integers(1, STEP - 1))
    elif form == "depthwise":
        group, inputs, outputs = wide, 1, wide
    elif form == "grouped":
        group, inputs, outputs = 2, STEP, 2 * STEP
    elif form == "odd outputs":
        outputs += draw(st.integers(1, STEP - 1))
    elif form == "odd inputs":
        inputs += draw(st.integers(1, STEP - 1))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    attributes: dict[str, Any] = {
        "group": group,
        "strides": draw(st.tuples(*[st.integers(1, 3)] * 2)),
        "dilations": draw(st.tuples(*[st.integers(1, 2)] * 2)),
    }
    padding = draw(st.sampled_from(["pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if padding == "pads":
        attributes["pads"] = draw(st.tuples(*[st.integers(0, k - 1) for k in (*kernel, *kernel)]))
    elif padding != "none":
        attributes["auto_pad"] = padding
        if padding != "VALID":
            attributes["dilations"] = (1, 1)
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    spatial = draw(st.tuples(st.integers(8, 12), st.integers(9, 13)))
    shape = (draw(st.integers(1, 2)), inputs * group, *spatial)
    fits = not form.startswith("odd") and kernel != (1, 1)
    return (outputs, inputs, *kernel), shape, attributes, fits


def nodes_in_layout(lowered: ir.Model) -> list[str]:
    return [n.op_type for n in lowered.graph if n.domain == blocked_layout.DOMAIN]


@settings(
    max_examples=120,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(convolutions(), st.sampled_from([0, -128, 127, 5]), st.booleans(), st.integers(0, 2**32 - 1))
def test_integers_are_those_of_the_evaluator(
    tmp_path: Path,
    drawn: tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], bool],
    offset: int,
    bias: bool,
    seed: int,
) -> None:
    weight, shape, attributes, fits = drawn
    rng = np.random.default_rng(seed)
    constants = {"w": rng.integers(-128, 128, weight).astype(np.int8)}
    if bias:
        constants["b"] = rng.integers(-(2**20), 2**20, weight[0]).astype(np.int32)
    nodes = [quant("x", "q", 40.0, offset), helper.make_node("Conv", ["q", *constants], ["m"], "layer", **attributes)]
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, {"x": (F32, shape)}, {"m": I32}, constants))
    feeds = {"x": rng.normal(0, 2, shape).astype(np.float32)}
    expected = Evaluator(path).run(feeds)["m"]
    found = lower(read_model(path), PROFILES["reference"])
    assert found.layers[0].exact_in_float32
    assert bool(nodes_in_layout(found.model)) == (fits and SIZE is not None)
    np.testing.assert_array_equal(LoweredSession(found).run(["m"], feeds)[0], expected)


def test_without_the_layout_the_integers_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU for which onnxruntime has no blocked kernels."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.integers(-128, 128, (16, 16, 3, 3)).astype(np.int8)}
    node = helper.make_node("Conv", ["q", "w"], ["m"], "layer", pads=[1] * 4)
    content = model([quant("x", "q", 40.0, 3), node], {"x": (F32, [1, 16, 7, 7])}, {"m": I32}, constants)
    feeds = {"x": rng.normal(0, 2, (1, 16, 7, 7)).astype(np.float32)}
    (blocked,) = DeploySession(content).run(None, feeds)
    monkeypatch.setattr(blocked_layout, "block_size", lambda: None)
    (plain,) = DeploySession(content).run(None, feeds)
    np.testing.assert_array_equal(plain, blocked)


def test_a_runtime_that_lacks_the_operators_has_no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked_layout.block_size.cache_clear()
    monkeypatch.setattr(blocked_layout, "DOMAIN", "nobody.has.this")
    try:
        assert blocked_layout.block_size() is None
    finally:
        blocked_layout.block_size.cache_clear()


def test_a_layout_in_another_order_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later onnxruntime might have it: the probe compares with the ordinary kernel."""
    ordered = blocked_layout._ordered

    def reversed_blocks(weight: np.ndarray, group: int, size: int) -> np.ndarray | None:
        found = ordered(weight, group, size)
        return None if found is None else found[..., ::-1]

    blocked_layout.block_size.cache_clear()
    monkeypatch.setattr(blocked_layout, "_ordered", reversed_blocks)
    try:
        assert blocked_layout.block_size() is None
    finally:
        blocked_layout.block_size.cache_clear()


def test_layers_in_parts_use_the_layout_as_well(tmp_path: Path) -> None:
    """Each half's sums are exact in float32, its 64 channels whole blocks."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.choice(np.array([-128, 127], np.int8), (STEP, 128, 3, 3))}
    node = helper.make_node("Conv", ["q", "w"], ["m"], "layer", pads=[1] * 4)
    path = tmp_path / "m.onnx"
    shape = (1, 128, 5, 5)
    path.write_bytes(model([quant("x", "q", 40.0, 127), node], {"x": (F32, shape)}, {"m": I32}, constants))
    feeds = {"x": rng.normal(0, 3, shape).astype(np.float32)}
    found = lower(read_model(path), PROFILES["reference"])
    assert found.layers[0].kernel == "split"
    assert bool(nodes_in_layout(found.model)) == (SIZE is not None)
    np.testing.assert_array_equal(LoweredSession(found).run(["m"], feeds)[0], Evaluator(path).run(feeds)["m"])
