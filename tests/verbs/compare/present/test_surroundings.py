"""Which nodes stand in the picture of a layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from amct_onnx.files.read import read_model
from amct_onnx.plan.ledger import LayerEntry
from amct_onnx.verbs.compare.pairing import Ends, Paired
from amct_onnx.verbs.compare.present.surroundings import MAX_BESIDE, Surroundings
from support.qdq_builder import QdqBuilder


def source(folder: Path, readers: int = 1, *, turned: bool = False) -> ir.Model:
    """x -> Relu -> Q -> DQ -> Gemm with a computed weight -> Add -> Relu, once for each reader.

    ``turned``: the file lists them from behind, as Quark's files list some.
    """
    builder = QdqBuilder()
    x = builder.node("Relu", [builder.input("x", [1, 4])], "before", "r")
    held = builder.node("Abs", [builder.constant(np.ones((4, 4), np.float32))], "of constants")
    weight = builder.node("Transpose", [held], "also of constants")
    made = builder.node("Gemm", [builder.activation(x, 0.1, None), weight], "layer", "g")
    made = builder.node("Add", [made, builder.constant(np.ones(4, np.float32))], "bias", "y")
    for number in range(readers):
        builder.output(builder.node("Relu", [made], f"behind {number}", f"out {number}"))
    if turned:
        builder.nodes.reverse()
    return read_model(builder.save(folder))


@pytest.mark.parametrize("turned", [False, True])
def test_the_layer_lies_between_its_ends_and_constants_are_left_out(turned: bool, tmp_path: Path) -> None:
    pair = Paired(LayerEntry("layer", "Gemm", "converted"), Ends("r", "y"), None, None)
    nodes = Surroundings(source(tmp_path, turned=turned)).of_source(pair)
    assert [(n.op_type, n.own, n.layer, n.reads) for n in nodes] == [
        ("Relu", False, False, ()),
        ("QuantizeLinear", True, False, (0,)),
        ("DequantizeLinear", True, False, (1,)),
        ("Gemm", True, True, (2,)),
        ("Add", True, False, (3,)),
        ("Relu", False, False, (4,)),
    ]


def test_a_layer_that_stays_float_is_one_node_and_neighbours_are_few(tmp_path: Path) -> None:
    pair = Paired(LayerEntry("layer", "Gemm", "refused"), Ends("", "g"), None, None)
    nodes = Surroundings(source(tmp_path, readers=20)).of_source(pair)
    assert [n.name for n in nodes if n.own] == ["layer"]
    assert len([n for n in nodes if n.name.startswith(("behind", "bias"))]) == MAX_BESIDE


def test_nodes_that_a_deploy_model_lost_are_not_there(tmp_path: Path) -> None:
    entry = LayerEntry("layer", "Gemm", "converted", deploy_nodes=("layer.quant", "layer"))
    surroundings = Surroundings(source(tmp_path))
    found = surroundings.of_deploy(Paired(entry, Ends("r", "y"), None, None))
    assert [n.name for n in found if n.own] == ["layer"]
    entry = LayerEntry("gone", "Gemm", "converted")
    assert surroundings.of_deploy(Paired(entry, Ends("gone", "gone"), None, None)) == ()
    assert surroundings.of_source(Paired(entry, Ends("gone", "gone"), None, None)) == ()
