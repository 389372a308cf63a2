"""Mul and Div by one number, however it is stored; nothing else counts as a factor."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.scalar_factors import factor_of
from support.tensor_protos import tensor_proto


def node_of(text: str, shape: str, constant: np.ndarray) -> ir.Node:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float{shape} x) => (float y) {{ y = {text} }}'
    )
    model.graph.initializer.append(tensor_proto(constant, "c"))
    return next(iter(ir.from_proto(model).graph))


FACTORS = {
    "Div": ("Div(x, c)", "[n, 4]", 6.0),
    "Mul": ("Mul(x, c)", "[n, 4]", 0.125),
    "constant first": ("Mul(c, x)", "[n, 4]", 0.125),
    "one axis": ("Mul(x, c)", "[n, 4]", [3.0]),
    "as many axes": ("Mul(x, c)", "[n, 4]", [[3.0]]),
    "one number repeated": ("Mul(x, c)", "[n, 4]", [3.0] * 4),
}
OTHERS = {
    "constant above": ("Div(c, x)", "[n, 4]", 6.0),
    "0": ("Mul(x, c)", "[n, 4]", 0.0),
    "below 0": ("Mul(x, c)", "[n, 4]", -2.0),
    "infinity": ("Mul(x, c)", "[n, 4]", np.inf),
    "not a number": ("Mul(x, c)", "[n, 4]", np.nan),
    "unlike numbers": ("Mul(x, c)", "[n, 4]", [1.0, 2.0, 2.0, 2.0]),
    "no numbers": ("Mul(x, c)", "[n, 4]", np.zeros((0, 4))),
    "one more axis": ("Mul(x, c)", "[n, 4]", [[[3.0]]]),
    "an axis that grows": ("Mul(x, c)", "[n, 1]", [3.0] * 4),
    "an axis that may grow": ("Mul(x, c)", "[n, m]", [3.0] * 4),
    "another operator": ("Add(x, c)", "[n, 4]", 6.0),
    "itself": ("Mul(x, x)", "[n, 4]", 6.0),
}


@pytest.mark.parametrize(("text", "shape", "constant"), FACTORS.values(), ids=FACTORS)
def test_factor(text: str, shape: str, constant: float | list[float]) -> None:
    node = node_of(text, shape, np.asarray(constant, np.float32))
    found = factor_of(node, ConstantEvaluator(17))
    assert found is not None
    assert (found.value.name, found.op_type) == ("x", node.op_type)
    assert found.number == float(np.asarray(constant).flat[0])


@pytest.mark.parametrize(("text", "shape", "constant"), OTHERS.values(), ids=OTHERS)
def test_what_is_not_a_factor(text: str, shape: str, constant: float | list[float]) -> None:
    assert factor_of(node_of(text, shape, np.asarray(constant, np.float32)), ConstantEvaluator(17)) is None
