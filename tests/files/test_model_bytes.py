"""A model as bytes is the model that protobuf writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor, make_tensor_value_info

from amct_onnx.files.model_bytes import model_bytes
from amct_onnx.files.read import read_model
from support.declared_constants import without_declared_constants
from support.golden_models import MODELS

LARGE = np.arange(40_000, dtype=np.float32).reshape(200, 200)


def mixed() -> onnx.ModelProto:
    """Weights of many types and sizes, a body, and text."""
    body = make_graph([make_node("Add", ["x", "large"], ["b"])], "body", [], [make_tensor_value_info("b", 1, None)])
    nodes = [
        make_node("If", ["c"], ["y"], then_branch=body, else_branch=body),
        make_node("Cast", ["half"], ["z"], to=TensorProto.FLOAT),
    ]
    weights = [
        numpy_helper.from_array(LARGE, "large"),
        numpy_helper.from_array(LARGE.astype(np.float16), "half"),
        numpy_helper.from_array(np.array(True), "c"),
        make_tensor("nibbles", TensorProto.INT4, [3], [1, -2, 3]),
        make_tensor("texts", TensorProto.STRING, [2], [b"a", b"bc"]),
    ]
    outputs = [
        make_tensor_value_info("y", TensorProto.FLOAT, None),
        make_tensor_value_info("z", TensorProto.FLOAT, None),
    ]
    graph = make_graph(nodes, "g", [make_tensor_value_info("x", TensorProto.FLOAT, [200, 200])], outputs, weights)
    return make_model(graph, opset_imports=[make_opsetid("", 21)], producer_name="p", doc_string="d")


def alike(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Equal, however a tensor is stored."""
    arrays = [{t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (one, other)]
    for model in (one, other):
        del model.graph.initializer[:]
    same = arrays[0].keys() == arrays[1].keys()
    return same and one == other and all(np.array_equal(a, arrays[1][n]) for n, a in arrays[0].items())


def test_weights_of_any_type_and_bodies_are_kept(tmp_path: Path) -> None:
    onnx.save(mixed(), tmp_path / "m.onnx")
    from_file, in_memory = read_model(tmp_path / "m.onnx"), ir.from_proto(mixed())
    assert isinstance(in_memory, ir.Model)
    for model in (from_file, in_memory):
        assert alike(onnx.load_from_string(model_bytes(model)), without_declared_constants(ir.to_proto(model)))


@pytest.mark.parametrize("name", ["torchfx_digitsnet_u8_bnfold_op13", "ort_digitsnet_qop_u8"])
def test_models_of_exporters_are_kept(name: str) -> None:
    model = read_model(MODELS / name / "model.onnx")
    assert alike(onnx.load_from_string(model_bytes(model)), without_declared_constants(ir.to_proto(model)))
