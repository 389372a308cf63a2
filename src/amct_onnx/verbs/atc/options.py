"""Options of ATC: those that this package writes itself, and those that a quantized model excludes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from amct_onnx.errors import SettingError

OURS = {
    "framework": "it is always 5, ONNX",
    "model": "give it as --model of this command",
    "output": "give it as --output of this command",
    "soc_version": "give it as --soc_version of this command",
    "input_shape": "give it as --input_shape of this command",
    "input_format": "give it as --input_format of this command",
    "insert_op_conf": "give it as --insert_op_conf of this command",
}
"""Options that appear once in the line; why a second one is refused."""


@dataclass(frozen=True)
class Exclusion:
    """An option, or one value of it, that a quantized model excludes.

    Attributes:
        option: name without dashes.
        value: the excluded value; None for every value.
        reason: one sentence for the user.
    """

    option: str
    value: str | None
    reason: str


_DYNAMIC = "a quantized model is compiled for fixed shapes; compile one model for each shape"
_FLOAT32 = "it would undo the float16 and int8 operators that the quantized model consists of"
EXCLUDED = (
    Exclusion("dynamic_batch_size", None, _DYNAMIC),
    Exclusion("dynamic_image_size", None, _DYNAMIC),
    Exclusion("dynamic_dims", None, _DYNAMIC),
    Exclusion("input_shape_range", None, _DYNAMIC),
    Exclusion("precision_mode", "force_fp32", _FLOAT32),
    Exclusion("precision_mode", "must_keep_origin_dtype", _FLOAT32),
    Exclusion("precision_mode_v2", "origin", _FLOAT32),
    Exclusion("op_precision_mode", "high_precision", _FLOAT32),
)
"""From the CANN documentation of ATC on models quantized by AMCT."""


def normalise(words: Iterable[str]) -> tuple[str, ...]:
    """Options in the form ``--name=value``; ``--name value`` and ``--name-with-dashes=value`` are taken as well.

    Raises:
        SettingError: A word is not an option.
    """
    found: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise SettingError(f"'{word}' is not an option of ATC. Write options as --name=value behind a lone --.")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise SettingError(f"'--{name}' has no value. Write options as --name=value behind a lone --.")
            value = waiting.pop(0)
        found.append(f"--{name.replace('-', '_')}={value}")
    return tuple(found)


def refuse_excluded(options: Iterable[str], quantized: bool) -> None:
    """Check normalised options.

    Raises:
        SettingError: An option is one that this package writes, or one that the quantized model excludes.
    """
    for option in options:
        name, _, value = option[2:].partition("=")
        if name in OURS:
            raise SettingError(f"'--{name}' cannot be given behind --. Leave it out: {OURS[name]}.")
        for exclusion in EXCLUDED if quantized else ():
            if exclusion.option == name and exclusion.value in (None, value):
                shown = f"'--{name}'" if exclusion.value is None else f"'--{name}={value}'"
                raise SettingError(f"{shown} is excluded for a quantized model: {exclusion.reason}. Leave it out.")
