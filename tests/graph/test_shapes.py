"""Shapes and types are completed beside what cannot be read or is declared wrongly."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from amct_onnx.graph.shapes import infer_shapes

HEADER = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>'
MAP = "m = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1]> (x) p = Relu(x)"
MODELS = {
    "graph": f"g (float[3, 2] x) => (float[a, b] p) {{ {MAP} }}",
    "body": f"""g (float[3, 2] x, bool c) => (float[a, b] y) {{
        y = If (c) <then_branch = t () => (float[d, e] p) {{ {MAP} }},
                    else_branch = e () => (float[d, e] r) {{ r = Sin(x) }}> }}""",
}


@pytest.mark.parametrize("where", MODELS)
def test_a_map_leaves_the_shapes_of_the_rest(where: str) -> None:
    """onnx-ir reads no map, which ZipMap of scikit-learn's classifiers gives."""
    model = ir.from_proto(onnx.parser.parse_model(HEADER + MODELS[where]))
    relu = next(n for n in ir.traversal.RecursiveGraphIterator(model.graph) if n.op_type == "Relu")
    relu.outputs[0].shape = None
    infer_shapes(model, strict=False)
    assert relu.outputs[0].shape == ir.Shape([3, 2])


def test_a_constant_declared_as_a_scalar_has_the_shape_of_its_tensor() -> None:
    text = "g (float[3, 2] x) => (float[a, b] y) <float[2] k = {1, 2}> { y = Add(x, k) }"
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    constant = model.graph.initializers["k"]
    constant.shape = ir.Shape([])
    infer_shapes(model, strict=True)
    assert constant.shape == ir.Shape([2])
