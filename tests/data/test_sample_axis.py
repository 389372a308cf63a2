"""The axis of samples of recurrent states and their like."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import amct_onnx
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.sample_axis import sample_axes
from support.small_models import qdq_model


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([("N", 3)], [0]),
        ([("N", 3), ("M", 3)], [0, 0]),
        ([("N", 5, 3), (2, "N", 3)], [0, 1]),
        ([(2, "N", 3), ("N", 3)], [1, 0]),
        ([("T", "N", 3), (1, "N")], [1, 1]),
        ([("N", 3), (1, 3)], None),
        ([("N", "N"), (1, "N")], None),
        ([("N", 3), ()], None),
        ([(4, 3)], None),
        ([("N", 3), (2, None, 3)], None),
    ],
)
def test_axes(shapes: list[tuple[Any, ...]], axes: list[int] | None) -> None:
    inputs = [InputSpec(str(n), shape, np.dtype(np.float32)) for n, shape in enumerate(shapes)]
    assert sample_axes(inputs) == (None if axes is None else {str(n): a for n, a in enumerate(axes)})


def with_state(path: Any, name: str | None) -> None:
    """Add a state [2, N, 3] that is handed on, times 2."""
    model = onnx.load(path)
    graph = model.graph
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    graph.input.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, name, 3]))
    graph.node.append(helper.make_node("Add", ["h", "h"], ["h2"], "state"))
    graph.output.append(helper.make_tensor_value_info("h2", TensorProto.FLOAT, [2, name, 3]))
    onnx.save(model, path)


def test_states_are_cut_along_their_axis_or_taken_whole(tmp_path: Any) -> None:
    random = np.random.default_rng(3)
    path = qdq_model(tmp_path)
    with_state(path, "N")
    amct_onnx.convert_qat_model(path, "m")
    data = {"x": random.normal(size=(5, 3)).astype(np.float32), "h": random.normal(size=(2, 5, 3)).astype(np.float32)}
    whole = amct_onnx.compare(path, "m", data)
    cut = amct_onnx.compare(path, "m", data, batch_size=2)
    assert whole.samples == whole.samples_total == cut.samples == cut.samples_total == 5
    for one, two in zip(whole.outputs, cut.outputs, strict=True):
        assert [d.max_abs for d in one.differences] == [d.max_abs for d in two.differences]
    unnamed = tmp_path / "unnamed"
    unnamed.mkdir()
    path = qdq_model(unnamed)
    with_state(path, None)
    amct_onnx.convert_qat_model(path, "u")
    with pytest.raises(amct_onnx.DataError, match=r"5 in 'x', 2 in 'h'.*batch_size 0"):
        amct_onnx.compare(path, "u", data)
    report = amct_onnx.compare(path, "u", [data, data], batch_size=0)
    assert (report.samples, report.verdict.level) == (2, "noise")
    assert amct_onnx.simulate("u_deploy_model.onnx", [data, data], "out").feeds == 2
