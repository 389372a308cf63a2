"""What a deploy model's Ascend operators hold against what the ledger says they hold; asked once a fault is found."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from amct_onnx.common.arithmetic import dequantize_scale, reciprocal
from amct_onnx.common.arrays import Float64
from amct_onnx.device.ascend_arithmetic import unpack_deq_scale
from amct_onnx.plan.ledger import LayerEntry

DEFAULTS = {"scale": 1.0, "offset": 0.0}
"""Of attributes that a file leaves out."""
TOLERANCE = 1e-5
"""Relative: the ledger's decimal figures stand for float32 numbers, and a split scale is rounded once more."""


def quantizer_contradiction(members: Sequence[ir.Node], entry: LayerEntry) -> tuple[str, str]:
    """The layer's AscendQuants against the ledger's factors: ``("scale" or "zero point", sentence)``, or two "".

    Args:
        members: nodes of the layer in the deploy model.
        entry: of the ledger.
    """
    layer = _layer(members, entry)
    if entry.second_scale_d is None or layer is None or len(layer.inputs) < 2:
        first = next((n for n in members if n.op_type == "AscendQuant"), None)
        return _contradiction(first, entry.scale_d, entry.offset_d, "scale_d")
    # the second may stand in front of the first: others share it
    first, second = (None if v is None else v.producer() for v in layer.inputs[:2])
    found = _contradiction(first, entry.scale_d, entry.offset_d, "scale_d")
    return found if found[0] else _contradiction(second, entry.second_scale_d, 0, "second_scale_d")


def _contradiction(node: ir.Node | None, scale: float | None, zero: int | None, name: str) -> tuple[str, str]:
    """See ``quantizer_contradiction``; of one AscendQuant."""
    if node is None or node.op_type != "AscendQuant" or scale is None or zero is None:
        return "", ""
    offset = round(_number(node, "offset"))
    if offset != zero:
        return "zero point", f"AscendQuant '{node.name}' has offset {offset}; the ledger says {zero}."
    held, said = _number(node, "scale"), float(reciprocal(np.float32(scale)))
    if abs(held - said) > TOLERANCE * said:
        return "scale", f"AscendQuant '{node.name}' has scale {held:.6g}; the ledger says {said:.6g} (1 / {name})."
    return "", ""


def dequantizer_contradiction(members: Sequence[ir.Node], entry: LayerEntry) -> str:
    """The layer's dequantization scales against read_scale · scale_w: a sentence, or ""."""
    found = dequantizer(members, entry)
    if found is None or entry.read_scale is None:
        return ""
    node, held = found
    said = dequantize_scale(np.float32(entry.read_scale), np.asarray(entry.scale_w, np.float32)).astype(np.float64)
    if held.size != said.size:
        return f"AscendDequant '{node.name}' has {held.size} scales; the ledger says {said.size}."
    off = np.abs(held / said - 1)
    wrong = np.flatnonzero(~(off <= TOLERANCE))
    if not wrong.size:
        return ""
    worst = int(wrong[np.nan_to_num(off[wrong], nan=np.inf).argmax()])
    which = f"channel {worst}" + (f" and {wrong.size - 1} more" if wrong.size > 1 else "")
    return (
        f"AscendDequant '{node.name}' has scale {held[worst]:.6g} for {which}; the ledger says {said[worst]:.6g} "
        "(read_scale · scale_w)."
    )


def has_bias(members: Sequence[ir.Node], entry: LayerEntry) -> bool:
    """Whether the layer adds an int32 bias, as an input or behind a MatMul."""
    node = _layer(members, entry)
    if node is None:
        return True  # another form; nothing can be said
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return True
    return any(u.node.op_type == "Add" for u in node.outputs[0].uses())


def antiquant_contradiction(nodes: Sequence[ir.Node], ratios: Collection[float]) -> str:
    """An AscendAntiQuant that does not undo the AscendQuant which it reads: a sentence, or "".

    Args:
        nodes: of the deploy model.
        ratios: of the scales of two such operators that the ledger tells of.
    """
    for node in nodes:
        if node.op_type != "AscendAntiQuant" or node.inputs[0] is None:
            continue
        quant = node.inputs[0].producer()
        while quant is not None and quant.op_type != "AscendQuant" and quant.inputs and quant.inputs[0] is not None:
            quant = quant.inputs[0].producer()
        if quant is None or quant.op_type != "AscendQuant":
            continue
        mine, its = (_number(n, "scale") for n in (node, quant))
        if all(abs(mine * its / ratio - 1) > TOLERANCE for ratio in ratios):
            return (
                f"AscendAntiQuant '{node.name}' has scale {mine:.6g}; its AscendQuant '{quant.name}' asks for "
                f"{1 / its:.6g}."
            )
        offsets = [round(_number(n, "offset")) for n in (node, quant)]
        if offsets[0] != offsets[1]:
            return (
                f"AscendAntiQuant '{node.name}' has offset {offsets[0]}; its AscendQuant '{quant.name}' has "
                f"{offsets[1]}."
            )
    return ""


def _number(node: ir.Node, name: str) -> float:
    """Of a quantizer, or what is taken where it has none."""
    attribute = node.attributes.get(name)
    return DEFAULTS[name] if attribute is None else attribute.as_float()


def _layer(members: Sequence[ir.Node], entry: LayerEntry) -> ir.Node | None:
    return next((n for n in members if n.name == entry.name), None)


def dequantizer(members: Sequence[ir.Node], entry: LayerEntry) -> tuple[ir.Node, Float64] | None:
    """The AscendDequant behind the layer, and its scales with those of a Mul that carries their ratio."""
    node = _layer(members, entry)
    while node is not None and node.op_type != "AscendDequant":
        node = next((u.node for u in node.outputs[0].uses() if u.node in members), None)
    parameter = node.inputs[1].const_value if node is not None and node.inputs[1] is not None else None
    if node is None or parameter is None:
        return None
    scales = unpack_deq_scale(parameter.numpy().reshape(-1))[0].astype(np.float64)
    behind = next((u.node for u in node.outputs[0].uses() if u.node in members and u.node.op_type == "Mul"), None)
    if behind is not None:
        ratio = next((v.const_value for v in behind.inputs if v is not None and v.const_value is not None), None)
        if ratio is not None:
            scales = scales * ratio.numpy().astype(np.float64).reshape(-1)
    return node, scales
