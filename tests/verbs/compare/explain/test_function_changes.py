"""A function in an output model computes what the operator of its name should: it is named, though no node differs."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from amct_onnx.verbs.compare.explain.beside_ledger import examine_files
from amct_onnx.verbs.compare.explain.function_changes import function_changes
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support.comparison_cases import Case, as_of_other_code


def with_function(model: onnx.ModelProto, op_type: str, body: str = "Neg") -> onnx.ModelProto:
    version = next(o.version for o in model.opset_import if not o.domain)
    node = helper.make_node(body, ["X"], ["Y"])
    model.functions.append(helper.make_function("", op_type, ["X"], ["Y"], [node], [helper.make_opsetid("", version)]))
    return model


@pytest.mark.parametrize("same_code", [True, False])
def test_function_with_an_operators_name_is_a_fault(same_code: bool, digits: Case) -> None:
    """Also where files of other code are not held against the conversion."""
    onnx.save(with_function(onnx.load(digits.deploy), "Relu"), digits.deploy)
    path = read_ledger(digits.prefix).path
    if not same_code:
        as_of_other_code(path)
    found = examine_files(digits.source, read_ledger(digits.prefix))
    assert not found.fake_quant and bool(found.not_judged) != same_code
    (change,) = [c.change for c in found.deploy]
    assert change.cause == "node-replaced" and change.node == "/c1.0/Relu"
    assert change.text.startswith("The deploy model has a function 'Relu' of ai.onnx of its own; the conversion writes")


def test_missing_changed_and_uncalled_functions_are_told() -> None:
    def model(body: str = "") -> ir.Model:
        graph = helper.make_graph([], "g", [], [])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return ir.from_proto(with_function(made, "Act", body) if body else made)

    def told(written: ir.Model, found: ir.Model) -> list[tuple[str, str]]:
        return [(c.cause, c.text) for c in function_changes(written, found, "deploy")]

    assert told(model("Neg"), model("Neg")) == []
    assert told(model("Neg"), model()) == [
        ("node-missing", "The conversion writes the function 'Act' of ai.onnx, the deploy model has none.")
    ]
    assert told(model("Neg"), model("Abs")) == [
        ("node-replaced", "The function 'Act' of ai.onnx of the deploy model is not what the conversion writes.")
    ]
    assert told(model(), model("Neg")) == [
        ("node-added", "The deploy model has a function 'Act' of ai.onnx of its own; the conversion writes none.")
    ]
