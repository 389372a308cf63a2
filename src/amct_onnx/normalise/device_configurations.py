"""Hints on which devices a node is to be spread over: a deploy model has one device, and ATC does not know them."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.common.counted import counted
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.model_warnings import warn


def remove_device_configurations(model: ir.Model) -> list[ir.Node]:
    """Remove the hints in place, damaged ones as well, which onnx-ir does not write; the nodes that had some.

    Versions of onnx-ir that do not read them drop them as well.
    """
    spread = [n for n in nodes_of(model) if getattr(n, "device_configurations", ())]
    for node in spread:
        node.device_configurations = ()
    if getattr(model, "device_configurations", ()):
        model.device_configurations = ()
    return spread


def drop_device_configurations(model: ir.Model) -> None:
    """Remove the hints in place, with one warning."""
    spread = remove_device_configurations(model)
    if spread:
        more = f" and {counted(len(spread) - 1, 'more node')}" if len(spread) > 1 else ""
        warn(model, f"Node '{spread[0].name}'{more}: what it says of several devices is dropped; ATC compiles for one.")
