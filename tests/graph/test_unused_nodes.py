"""Nodes that no output needs, in front of and inside an If that no output needs."""

from __future__ import annotations

import onnx_ir as ir
from onnx import parser

from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.unused_nodes import remove_unused_nodes

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, bool c) => (float[2] y) {
    y = Relu(x)
    kept = Abs(x)
    a = Neg(x)
    b = Exp(a)
    z = If (c) <
        then_branch = t () => (float[2] p) {
            q = Sqrt(b)
            n = If (c) <
                then_branch = u () => (float[2] r) { r = Sin(a) },
                else_branch = v () => (float[2] s) { s = Cos(kept) }
            >
            p = Add(q, n)
        },
        else_branch = e () => (float[2] w) { w = Log(a) }
    >
}"""


def test_what_a_dead_body_alone_reads_goes_with_it() -> None:
    model = ir.from_proto(parser.parse_model(TEXT))
    remove_unused_nodes(model)
    assert [n.op_type for n in nodes_of(model)] == ["Relu"]
