"""The static certificate under attack: the inputs that reach its bound, one step below 2^24 and one above."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from amct_onnx.device.facts import EXACT_IN_FLOAT32, largest_sum, weight_sums
from amct_onnx.device.session import DeploySession
from amct_onnx.graph.layers import LAYER_KINDS, Layout
from support.device_models import F32, I32, dequant, model, packed, quant

LAYERS: dict[str, tuple[str, tuple[int, ...], dict[str, object]]] = {
    "conv": ("Conv", (3, 5, 3, 3), {"pads": [1] * 4}),
    "conv grouped": ("Conv", (4, 3, 3, 3), {"pads": [1] * 4, "group": 2}),
    "conv deep": ("Conv", (2, 500, 1, 1), {}),
    "deconv": ("ConvTranspose", (5, 3, 3, 3), {"pads": [1] * 4}),
    "deconv grouped": ("ConvTranspose", (6, 2, 3, 3), {"group": 2, "pads": [1] * 4}),
    "gemm": ("Gemm", (40, 3), {}),
    "gemm transposed": ("Gemm", (3, 400), {"transB": 1}),
    "matmul batched": ("MatMul", (30, 4), {}),
}


def worst_input(op_type: str, weight: np.ndarray, group: int, channel: int, high: int, low: int) -> np.ndarray:
    """The centred input that gives one output channel's largest sum: ``high`` at its positive weights, else ``low``.

    A convolution has a 3 x 3 kernel and one pixel of padding, so that the middle of a 3 x 3 input sees all weights.
    """
    if op_type in ("Gemm", "MatMul"):
        return np.where(weight[:, channel] > 0, high, low)[None]
    if op_type == "Conv":
        own = weight[channel]
        share = channel // (weight.shape[0] // group)
    else:
        share, inner = divmod(channel, weight.shape[1])
        size = weight.shape[0] // group
        # a transposed convolution meets its kernel mirrored
        own = weight[share * size : (share + 1) * size, inner, ::-1, ::-1]
    x = np.zeros((own.shape[0] * group, *own.shape[1:]), np.int64)
    x[share * own.shape[0] : (share + 1) * own.shape[0]] = np.where(own > 0, high, low)
    return x[None]


@pytest.mark.parametrize("name", sorted(LAYERS))
@settings(max_examples=6, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    offset=st.sampled_from([-128, -127, -5, 0, 1, 127]),
    down=st.booleans(),
    kind=st.sampled_from(["any", "extreme", "one sign"]),
)
def test_the_worst_input_is_exact_on_both_sides_of_the_limit(
    name: str, seed: int, offset: int, down: bool, kind: str
) -> None:
    op_type, shape, attrs = LAYERS[name]
    random = np.random.default_rng(seed)
    weight = random.integers(-128, 128, shape).astype(np.int8)
    if kind != "any":
        weight = random.choice(np.array([-128, 127] if kind == "extreme" else [-128, -127], np.int8), shape)
    group, transposed = int(str(attrs.get("group", 1))), bool(attrs.get("transB", 0))
    sums = weight_sums(Layout(LAYER_KINDS[op_type], group, transposed), weight)
    low, high = -128 - offset, 127 - offset
    # the output channel whose sum decides the certificate, in the direction that is asked for
    signs = (low, high) if down else (high, low)
    reach = sums.positive * signs[0] - sums.negative * signs[1]
    channel = int(np.abs(reach).argmax())
    flat = weight.T if transposed else weight
    centred = worst_input(op_type, flat, group, channel, *signs)
    assert np.abs(reach[channel]) <= largest_sum(sums, offset, np.zeros(1, np.int64))
    for above in (0, 1):
        bias = np.zeros(sums.positive.size, np.int64)
        room = EXACT_IN_FLOAT32 + above - largest_sum(sums, offset, np.zeros(1, np.int64))
        # the certificate is the larger direction's; a smaller one leaves room that no input fills
        bias[:] = room * (1 if reach[channel] >= 0 else -1)
        constants = {"w": weight, "deq": packed(1.0)}
        nodes = [quant("x", "q", 1.0, offset)]
        if op_type == "MatMul":
            nodes += [helper.make_node(op_type, ["q", "w"], ["a"], "layer", **attrs)]
            nodes += [helper.make_node("Add", ["a", "b"], ["m"], "add")]
        else:
            nodes += [helper.make_node(op_type, ["q", "w", "b"], ["m"], "layer", **attrs)]
        constants["b"] = bias.astype(np.int32)
        content = model([*nodes, dequant("m", "y")], {"x": (F32, None)}, {"m": I32, "y": F32}, constants)
        session = DeploySession(content)
        (fact,) = session.facts
        assert (fact.largest_sum, fact.exact_in_float32) == (EXACT_IN_FLOAT32 + above, not above)
        assert (fact.kernel == "float32") == (not above)
        accumulator, y = session.run(None, {"x": centred.astype(np.float32)})
        middle = accumulator.reshape(accumulator.shape[1], -1)[:, accumulator[0, 0].size // 2]
        if op_type in ("Gemm", "MatMul"):
            middle = accumulator[0]
        assert middle[channel] == reach[channel] + bias[channel]
        assert np.array_equal(y, accumulator.astype(np.float32))


def test_a_gemm_bias_by_rows_counts_with_its_largest() -> None:
    """[M, 1] broadcasts along the channels even where M is their number."""
    weight = np.array([[1, 127, 1]], np.int8).repeat(1000, 0)
    bias = np.array([[2**23], [1], [1]], np.int32)
    constants = {"w": weight, "b": bias, "deq": packed(1.0)}
    gemm = helper.make_node("Gemm", ["q", "w", "b"], ["m"], "gemm")
    nodes = [quant("x", "q", 1.0, 0), gemm, dequant("m", "y")]
    content = model(nodes, {"x": (F32, None)}, {"m": I32}, constants)
    session = DeploySession(content)
    assert session.facts[0].largest_sum == 1000 * 127 * 128 + 2**23
    x = np.full((3, 1000), 127, np.float32)
    (m,) = session.run(None, {"x": x})
    assert np.array_equal(m, x.astype(np.int64) @ weight.astype(np.int64) + bias)
