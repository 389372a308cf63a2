"""The file for --fusion_switch_file with which the dumps of a board are comparable layer by layer."""

from __future__ import annotations

from amct_onnx.device.chips import Chip
from amct_onnx.errors import SettingError
from amct_onnx.graph.attributes import attribute
from amct_onnx.verbs.check.model_view import ModelView

REQUANT_PASSES = ("V100RequantFusionPass", "V200RequantFusionPass")


def passes_to_switch_off(chip: Chip, view: ModelView) -> tuple[str, ...]:
    """The passes that the documentation wants off, less one that a depthwise convolution needs.

    Raises:
        SettingError: No list is public for the chip.
    """
    if not chip.switched_off:
        raise SettingError(
            f"--comparable_dumps: which fusion passes to switch off on {chip.name} is not public. Leave the option "
            f"out; "
            'the documentation of --fusion_switch_file describes {"Switch": {"GraphFusion": {"ALL": "off"}}}.'
        )
    if not has_depthwise(view):
        return chip.switched_off
    return tuple(p for p in chip.switched_off if p not in REQUANT_PASSES)


def has_depthwise(view: ModelView) -> bool:
    """Whether an int8 Conv has as many groups as output channels: the requant pass must stay on for it."""
    return any(
        layer.channels is not None and 1 < attribute(layer.node, "group", 1) == layer.channels
        for layer in view.cubes("Conv")
    )


def fusion_switch_text(passes: tuple[str, ...]) -> str:
    """One line for each pass."""
    return "".join(f"{name}:off\n" for name in passes)
