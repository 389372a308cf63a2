"""What keeps a first convolution of few channels int8: three options of ATC that work together only."""

from __future__ import annotations

from amct_onnx.device.chips import CHIPS, Chip
from amct_onnx.errors import SettingError

COMPRESSION_TEXT = "enable_first_layer_quantization:true\n"
SMALL_CHANNEL = "--enable_small_channel=1"
HINT = (
    "The first convolution stays int8 only where AIPP stands directly in front of its AscendQuant. ATC reads "
    "--compression_optimize_conf with the AMCT package for ATC (acl) installed."
)


def check_first_layer(chip: Chip, insert_op_conf: str | None, aipp: str) -> None:
    """Whether the options can be written.

    Args:
        chip: that is compiled for.
        insert_op_conf: the AIPP configuration that the user gave.
        aipp: a configuration that fits the model; "" without an input that looks like an image.

    Raises:
        SettingError: The chip has no such feature, or there is no AIPP.
    """
    if not chip.first_layer:
        able = " and ".join(c.name for c in CHIPS if c.first_layer)
        raise SettingError(
            f"--first_layer: only {able} can keep the first layer int8, {chip.name} cannot. Leave the option out."
        )
    if insert_op_conf is None:
        example = f" For this model it could be:\n{aipp}" if aipp else ""
        raise SettingError(
            f"--first_layer needs a static AIPP in front of the layer. Give its file with --insert_op_conf.{example}"
        )
