"""The factor record: protobuf text of ScaleOffsetRecord, the ONNX flavour's fields."""

from __future__ import annotations

import re

import numpy as np

from amct_onnx.plan.factors import Plan

NUMBER = r"\d\.\d+e[+-]\d+"
OWN_FORM = re.compile(
    r'(?:record \{\n  key: "(?:[^"\\\n]|\\.)*"\n  value \{\n'
    rf"    scale_d: {NUMBER}\n    offset_d: -?\d+\n(?:    scale_w: {NUMBER}\n)+(?:    offset_w: 0\n)+"
    r"  \}\n\}\n)*\n?"
)
"""What ``record_text`` writes. Other tools write other fields, indents or numbers."""


def is_own_record(text: str) -> bool:
    """Whether a text has the form that ``record_text`` gives it, to the letter."""
    return OWN_FORM.fullmatch(text) is not None


def record_text(plan: Plan) -> str:
    """One record per converted layer; floats are written with the digits that restore the same float32."""
    lines: list[str] = []
    for site in plan.sites:
        key = site.node.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines += ["record {", f'  key: "{key}"', "  value {"]
        first = site.activations[0]
        lines += [f"    scale_d: {_text(np.float32(first.read_scale))}", f"    offset_d: {first.quantizer.offset_d}"]
        lines += [f"    scale_w: {_text(s)}" for s in site.scale_w]
        lines += ["    offset_w: 0"] * site.scale_w.size
        lines += ["  }", "}"]
    return "\n".join(lines) + "\n"


def _text(number: np.float32) -> str:
    return np.format_float_scientific(np.float32(number), unique=True, trim="0")
