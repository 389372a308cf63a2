"""Operators of opset 8 to 10 before and after the opset is raised, both in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.normalise.container import normalise_container
from support.deploy_evaluator import run

IMAGE = np.random.default_rng(3).standard_normal((2, 3, 6, 5)).astype(np.float32)


def of_opset(op_type: str, opset: int, scales: tuple[float, ...] | None = None, **attributes: Any) -> Any:
    """A model of one node; scales are its second input."""
    names = ["x"] if scales is None else ["x", "s"]
    constants = [] if scales is None else [numpy_helper.from_array(np.asarray(scales, np.float32), "s")]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, ["y"], "the_node", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=5)


def raised(model: Any) -> Any:
    """The model after the container rules."""
    return ir.to_proto(normalise_container(ir.from_proto(model)))


SCALES = {
    "up": (1.0, 1.0, 2.0, 3.0),
    "up by fractions": (1.0, 1.0, 1.5, 2.3),
    "down": (1.0, 1.0, 0.5, 0.5),
    "down by fractions": (1.0, 1.0, 0.4, 0.7),
}


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_keeps_its_coordinates(mode: str, scales: str) -> None:
    models = [of_opset("Resize", 10, SCALES[scales], mode=mode)]
    if scales.startswith("up"):
        models.append(of_opset("Upsample", 9, SCALES[scales], mode=mode))
    for model in models:
        now, then = (run(m, {"x": IMAGE})["y"] for m in (raised(model), model))
        # interpolation weights of the same coordinates, summed by another kernel
        np.testing.assert_allclose(now, then, rtol=0, atol=0 if mode == "nearest" else 2.0**-20)


def test_nearest_of_two_roundings_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'the_node'.*Resize.*enlarges one axis and reduces another"):
        raised(of_opset("Resize", 10, (1.0, 1.0, 2.0, 0.5)))


def test_hardmax_along_the_last_axis_alone() -> None:
    model = of_opset("Hardmax", 10, axis=3)
    assert np.array_equal(run(raised(model), {"x": IMAGE})["y"], run(model, {"x": IMAGE})["y"])
    for attributes in ({}, {"axis": 2}):
        with pytest.raises(UnsupportedModelError, match=r"Hardmax.*all axes from its axis on"):
            raised(of_opset("Hardmax", 10, **attributes))


PADS = {"constant": {"value": 0.75}, "reflect": {}, "edge": {"value": 0.3125}}


@pytest.mark.parametrize("mode", PADS)
@pytest.mark.parametrize("opset", [8, 10])
def test_pads_become_inputs(mode: str, opset: int) -> None:
    model = of_opset("Pad", opset, mode=mode, pads=[0, 0, 1, 2, 0, 0, 3, 1], **PADS[mode])
    (before,), (after,) = (run(m, {"x": IMAGE}).values() for m in (model, raised(model)))
    np.testing.assert_array_equal(before, after)
