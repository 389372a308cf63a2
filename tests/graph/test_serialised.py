"""Messages of graphs are those of onnx-ir, byte for byte; so are those of copies."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.common.wire_format import field_start
from amct_onnx.files.read import read_model
from amct_onnx.graph import serialised
from amct_onnx.graph.copied_model import copy_model
from amct_onnx.graph.serialised import graph_bytes, without_graph
from support.declared_constants import without_declared_constants

MODELS = Path(__file__).parents[1] / "data" / "models"
NAMES = ("ort_digitsnet_qdq_onlyconv", "torchfunc_miscC_op13", "modelopt_mlp3d_int8_op17")
BODY = """
    <ir_version: 8, opset_import: ["": 17, "com.vendor": 1], producer_name: "t", doc_string: "d">
    g (float[N, 3] x, bool c) => (float[N, 3] y, float z) <float[3] w = {1, 2, 3}, int64 i = {2}> {
        a, b = Split <axis = 1> (x)
        r = Relu (x)
        y = If (c) <
            then_branch = t () => (float[N, 3] p) { p = Add (r, w) },
            else_branch = e () => (float[N, 3] q) {
                q = com.vendor.Op <alpha = 1.5, text = "u", sizes = [1, 2]> (r, , w)
            }
        >
        z = ReduceMax <axes = [0, 1], keepdims = 0> (r)
    }
"""


def noted(model: onnx.ModelProto) -> onnx.ModelProto:
    """With texts, metadata and annotations on everything that has room for them."""
    graph = model.graph
    graph.doc_string = "graph"
    note = {"key": "k", "value": "v"}
    annotation = graph.quantization_annotation.add(tensor_name="r")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    for item in (model, graph, graph.node[0], graph.input[0], graph.initializer[0]):
        item.metadata_props.add(**note)
    for item in (graph.node[1], graph.input[1], graph.initializer[1], graph.node[0].attribute[0]):
        item.doc_string = "text"
    graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 3]))
    graph.value_info[-1].type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    graph.value_info.append(helper.make_tensor_sequence_value_info("a", TensorProto.FLOAT, None))
    graph.initializer.append(helper.make_tensor("typed", TensorProto.INT32, [2], [1, 2]))
    graph.initializer.append(numpy_helper.from_array(onnx.numpy_helper.to_array(graph.initializer[0])[:0], "none"))
    return model


def sources() -> list[onnx.ModelProto]:
    return [*(onnx.load(MODELS / name / "model.onnx") for name in NAMES), noted(onnx.parser.parse_model(BODY))]


@pytest.mark.parametrize("batch", (1, 1000))
@pytest.mark.parametrize("index", range(len(NAMES) + 1))
def test_bytes_are_those_of_onnx_ir(index: int, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialised, "BATCH", batch)
    onnx.save(sources()[index], tmp_path / "m.onnx")
    model = read_model(tmp_path / "m.onnx")
    for each in (model, copy_model(model)):
        content = graph_bytes(each.graph, initializers=each.graph.initializers.values())
        head = without_graph(each).SerializeToString()
        ours = head + field_start(7, len(content)) + content
        theirs = without_declared_constants(ir.to_proto(ir.from_proto(sources()[index])))
        # without functions the graph is the last field but for metadata and opsets, whose order a parser restores
        assert onnx.ModelProto.FromString(ours).SerializeToString() == theirs.SerializeToString()
        assert content == theirs.graph.SerializeToString()


def test_a_copy_shares_nothing_that_changes() -> None:
    model = ir.from_proto(sources()[-1])
    before = ir.to_proto(model).SerializeToString()
    copy = copy_model(model)
    for node in ir.traversal.RecursiveGraphIterator(copy.graph):
        node.name = f"{node.name}_2"
        node.metadata_props["k"] = "other"
        for value in node.outputs:
            value.name, value.shape, value.type = f"{value.name}_2", None, None
    copy.graph.initializers.clear()
    assert ir.to_proto(model).SerializeToString() == before


def test_what_is_left_out_of_a_copy_is_read_by_nobody() -> None:
    model = ir.from_proto(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> '
            "{ v = Neg (w) y = Add (x, v) }"
        )
    )
    neg = model.graph.node(0)
    copy = copy_model(model, {neg, neg.outputs[0], model.graph.initializers["w"]})
    (add,) = copy.graph
    assert [None if v is None else v.name for v in add.inputs] == ["x", None]
    assert not copy.graph.initializers and len(model.graph) == 2
