"""What in the nodes of a faulty piece tells the fault by itself: a node that nobody knows, a constant that is NaN."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from amct_onnx.plan.ledger import LayerEntry
from amct_onnx.verbs.compare.explain.differing_values import array_of, constant_of


def unknown_nodes(
    nodes: Sequence[ir.Node], layers: Sequence[LayerEntry], source: Collection[str]
) -> tuple[ir.Node, ...]:
    """The nodes that neither the source nor the conversion has; nodes Constant are initializers in either.

    The conversion names its nodes after those of the source, with a point and a word behind.

    Args:
        nodes: of an output model.
        layers: of the ledger, which lists the nodes of each.
        source: names of the source's nodes.
    """
    listed = {n for e in layers for n in (*e.deploy_nodes, *e.fake_quant_nodes)}

    def known(name: str) -> bool:
        while name:
            if name in source or name in listed:
                return True
            name = name.rpartition(".")[0]
        return False

    return tuple(n for n in nodes if n.op_type != "Constant" and not known(n.name or ""))


def nan_constant(nodes: Sequence[ir.Node]) -> tuple[str, str]:
    """The name of the first node that reads a constant with NaN in it, and a sentence; two "" without one.

    Infinity is left out: masks hold it.
    """
    for node in nodes:
        for value in node.inputs:
            tensor = constant_of(value)
            if value is None or tensor is None or not tensor.dtype.is_floating_point():
                continue
            count = int(np.count_nonzero(np.isnan(array_of(tensor).astype(np.float32))))
            if count:
                of = "" if count == tensor.size else f" of {tensor.size}"
                held = f"{count}{of} {'element is' if count == 1 else 'elements are'}"
                return node.name or "", f"{node.op_type} '{node.name}' reads constant '{value.name}': {held} NaN."
    return "", ""
