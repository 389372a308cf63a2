"""Constant nodes in every form that ONNX has: ATC's parser reads ``value`` alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.errors import ModelFileError
from amct_onnx.files.read import read_model
from amct_onnx.normalise.container import normalise_container
from support.written_models import convert_and_compare, write_model

LAYER = "wd = DequantizeLinear(w, s) q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) m = MatMul(d, wd)"
RNG = np.random.default_rng(3)
CONSTANTS = {"s": np.float32(0.05), "z": np.int8(3), "w": RNG.integers(-128, 128, (6, 4)).astype(np.int8)}
FEEDS = {"x": RNG.normal(size=(5, 6)).astype(np.float32)}
FORMS = {
    "value_float": "k = Constant <value_float: float = 1.5> () y = Add(m, k)",
    "value_floats": "k = Constant <value_floats: floats = [1.5, 2.0, -3.0, 0.25]> () y = Add(m, k)",
    "value_int": "i = Constant <value_int: int = 3> () k = Cast <to: int = 1> (i) y = Mul(m, k)",
    "value_ints": "k = Constant <value_ints: ints = [4, 5]> () n = Relu(m) y = Reshape(n, k)",
}


def forms_left(graph: onnx.GraphProto) -> list[list[str]]:
    """The attributes of every Constant, bodies included."""
    found = []
    for node in graph.node:
        if node.op_type == "Constant":
            found.append([a.name for a in node.attribute])
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += forms_left(attribute.g)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_becomes_an_initializer(form: str, tmp_path: Path) -> None:
    kind = "float[4, 5] y" if form == "value_ints" else "float[n, 4] y"
    path = write_model(tmp_path / "m.onnx", f"g (float[n, 6] x) => ({kind}) {{ {LAYER} {FORMS[form]} }}", CONSTANTS)
    _, deploy = convert_and_compare(path, FEEDS, units=0)
    assert forms_left(deploy.graph) == []


def test_in_a_branch(tmp_path: Path) -> None:
    text = f"""g (float[n, 6] x, bool c) => (float[n, 4] y) {{ {LAYER} y = If (c) <
        then_branch = t () => (float[n, 4] a) {{ k = Constant <value_float: float = 2.0> () a = Mul(m, k) }},
        else_branch = e () => (float[] b) {{ b = Constant <value_float: float = 7.0> () }}> }}"""
    path = write_model(tmp_path / "m.onnx", text, CONSTANTS)
    for condition in (True, False):
        _, deploy = convert_and_compare(path, FEEDS | {"c": np.array(condition)}, units=0)
    # the branch's own output stays a node
    assert forms_left(deploy.graph) == [["value"]]


def test_strings() -> None:
    texts = helper.make_node("Constant", [], ["t"], "texts", value_strings=["a", "ü"])
    one = helper.make_node("Constant", [], ["o"], "one", value_string="b")
    graph = helper.make_graph(
        [texts, one, helper.make_node("Concat", ["t", "x"], ["y"], axis=0), helper.make_node("Identity", ["o"], ["p"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.STRING, [1])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [3]), helper.make_tensor_value_info("p", 8, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    after = ir.to_proto(normalise_container(ir.from_proto(model)))
    held = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    assert [t.decode() if isinstance(t, bytes) else t for t in held["t"]] == ["a", "ü"]
    assert held["t"].shape == (2,) and held["o"].shape == ()


def sparse(path: Path, values: np.ndarray, indices: np.ndarray, dims: list[int]) -> Path:
    write_model(path, f"g (float[n, 6] x) => (float[n, 4] y) {{ {LAYER} y = Identity(m) }}", CONSTANTS)
    model = onnx.load(str(path))
    tensor = helper.make_sparse_tensor(numpy_helper.from_array(values, "v"), numpy_helper.from_array(indices), dims)
    node = helper.make_node("Constant", [], ["k"], "sparse", sparse_value=tensor)
    model.graph.node[-1].CopyFrom(helper.make_node("Add", ["m", "k"], ["y"], "add"))
    model.graph.node.insert(0, node)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("indices", [np.array([1, 3]), np.array([[0, 1], [0, 3]])], ids=["positions", "coordinates"])
def test_sparse_constant_is_read(indices: np.ndarray, tmp_path: Path) -> None:
    path = sparse(tmp_path / "m.onnx", np.float32([2.5, -1.0]), indices, [1, 4])
    dense = onnx.load(str(path))
    (node,) = [n for n in dense.graph.node if n.name == "sparse"]
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.float32([[0, 2.5, 0, -1]]))))
    (tmp_path / "dense").mkdir()
    onnx.save(dense, tmp_path / "dense" / "m.onnx")
    _, expected = convert_and_compare(tmp_path / "dense" / "m.onnx", FEEDS, units=0)
    _, deploy = convert_and_compare(path, FEEDS, units=0)
    assert deploy == expected
    assert forms_left(deploy.graph) in ([], [["value"]])


@pytest.mark.parametrize(
    ("indices", "dims", "message"),
    [
        (np.array([1, 4]), [1, 4], "do not fit"),
        (np.array([1, -1]), [1, 4], "do not fit"),
        (np.array([1]), [1, 4], "do not fit"),
        (np.array([[0, 1], [0, 9]]), [1, 4], "sparse"),
        (np.array([0, 1]), [2**20, 2**20], "bytes when dense"),
    ],
)
def test_sparse_constant_that_contradicts_itself(
    indices: np.ndarray, dims: list[int], message: str, tmp_path: Path
) -> None:
    path = sparse(tmp_path / "m.onnx", np.float32([2.5, -1.0]), np.array([1, 3]), [1, 4])
    model = onnx.load(str(path))
    tensor = model.graph.node[0].attribute[0].sparse_tensor
    tensor.indices.CopyFrom(numpy_helper.from_array(indices))
    tensor.dims[:] = dims
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match=message):
        read_model(path)
