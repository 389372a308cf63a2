"""A ledger that was edited, or is another conversion's, is blamed itself: never a healthy model, never an all-clear."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import amct_onnx
from amct_onnx.verbs.compare.explain.beside_ledger import Beside, examine_files
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support.comparison_cases import Case
from support.golden_models import MODELS

SOURCE = MODELS / "torchfx_miscB_i8sym_op13" / "model.onnx"
"""With 1-D convolutions, residual quantizers and float operators."""
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a conversion."""
    made = tmp_path_factory.mktemp("converted") / "m"
    amct_onnx.convert_qat_model(SOURCE, made)
    return made


def examined(prefix: Path, edit: Edit) -> Beside:
    file = Path(f"{prefix}_quant.json")
    kept = file.read_bytes()
    content = json.loads(kept)
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    try:
        return examine_files(SOURCE, read_ledger(prefix))
    finally:
        file.write_bytes(kept)


def layer(**values: Any) -> Edit:
    return lambda c: c["layers"][0].update(values)


def origin(**values: Any) -> Edit:
    return lambda c: c["origin"].update(values)


def test_ledger_as_written_has_no_change(prefix: Path) -> None:
    assert not examined(prefix, lambda content: None).ledger_changes


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda c: c["layers"][0]["deploy_nodes"].reverse(), ").deploy_nodes[0] is '"),
        (lambda c: c["layers"][0]["fake_quant_nodes"].pop(), ").fake_quant_nodes has "),
        (lambda c: c["layers"][0]["deploy_nodes"].append("ghost"), ").deploy_nodes has 6 entries; the conversion"),
        (lambda c: c["layers"].reverse(), "$.layers[0] ('"),
        (lambda c: layer(scale_d=c["layers"][0]["scale_d"] * 1.00001)(c), ").scale_d is "),
        (layer(op_type="Gemm"), ").op_type is 'Gemm'; the conversion writes 'Conv'"),
        (layer(source_input="ghost"), ").source_input is 'ghost'; the conversion writes '"),
        (lambda c: c["residuals"].clear(), "$.residuals has 0 entries; the conversion writes "),
        (lambda c: c["residuals"].append({**c["residuals"][0], "tensor": "nowhere"}), "$.residuals has "),
        (lambda c: c["residuals"][0].update(scale=9.5), ").scale is 9.5; the conversion writes "),
        (lambda c: c["float_operators"].clear(), "$.float_operators has 0 entries; the conversion writes "),
        (lambda c: c["graph"].clear(), "$.graph has 0 entries; the conversion writes 1"),
        (lambda c: c["cost"].update(macs=1), "$.cost.macs is 1; the conversion writes "),
        (lambda c: c["warnings"].append("x"), "$.warnings has "),
        (origin(residual_quantizers="drop"), "$.origin.residual_quantizers is 'drop'; the conversion writes 'keep'"),
        (
            origin(fake_quant_weights="float32"),
            "$.origin.fake_quant_weights is 'float32'; the conversion writes 'int8'",
        ),
        (origin(keep_conv1d=True), "$.origin.keep_conv1d is true; the conversion writes false"),
        (
            origin(residual_quantizers="drop", keep_conv1d=True),
            "$.origin.keep_conv1d is true; the conversion writes false",
        ),
    ],
)
def test_edit_is_named_and_the_models_are_not(prefix: Path, edit: Edit, text: str) -> None:
    found = examined(prefix, edit)
    assert not found.changed and not found.not_judged
    assert text in found.ledger_changes[0]
    assert found.ledger.layers == read_ledger(prefix).layers


def test_a_damaged_model_is_named_beside_an_edited_ledger(prefix: Path) -> None:
    path = Path(f"{prefix}_deploy_model.onnx")
    kept = path.read_bytes()
    model = onnx.load(path)
    node = next(n for n in model.graph.node if n.op_type == "Sigmoid")
    node.op_type = "Tanh"
    onnx.save(model, path)
    try:
        found = examined(prefix, origin(residual_quantizers="drop"))
    finally:
        path.write_bytes(kept)
    assert [c.change.node for c in found.deploy] == [node.name] and not found.fake_quant
    assert found.ledger_changes[0].startswith("$.origin.residual_quantizers is 'drop'")


def test_verdict_of_an_edited_ledger_is_incomplete(small: Case) -> None:
    file = Path(f"{small.prefix}_quant.json")
    content = json.loads(file.read_bytes())
    content["layers"][1]["scale_w"][0] *= 2
    file.write_text(json.dumps(content), encoding="utf-8")
    found = small.compare()
    assert found.verdict.level == "incomplete" and not [d for d in found.divergences if d.is_fault]
    assert found.verdict.headline == "Incomplete: the ledger is not the one of this conversion, or was changed."
    assert f"{file}: $.layers[1] ('{content['layers'][1]['name']}').scale_w[0] is " in found.verdict.brief[0]


def test_another_file_in_the_place_of_a_model_is_no_other_option(prefix: Path) -> None:
    path = Path(f"{prefix}_fake_quant_model.onnx")
    kept = path.read_bytes()
    path.write_bytes(SOURCE.read_bytes())
    try:
        found = examined(prefix, lambda content: None)
    finally:
        path.write_bytes(kept)
    assert [c.change.cause for c in found.fake_quant] == ["other-model"]
    assert not found.deploy and not found.ledger_changes
