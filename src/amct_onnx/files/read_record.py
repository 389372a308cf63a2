"""Read a record of quantization factors: protobuf text of ScaleOffsetRecord, as the vendor's tools and PPQ write it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import Message

from amct_onnx.common.proto_classes import message_classes
from amct_onnx.common.typed_json import read_bounded
from amct_onnx.errors import FactorError, ModelFileError, ModelNotFoundError

MESSAGES = {
    "SingleLayerRecord": (
        ("scale_d", 1, "float"),
        ("offset_d", 2, "int32"),
        ("scale_w", 3, "repeated float"),
        ("offset_w", 4, "repeated int32"),
        ("shift_bit", 5, "repeated uint32"),
        ("skip_fusion", 6, "bool"),
        ("is_tensor_quantize", 10, "bool"),
        ("tensor_balance_factor", 13, "repeated float"),
        ("op_data_type", 15, "string"),
        ("act_type", 20, "string"),
        ("wts_type", 21, "string"),
    ),
    "MapFiledEntry": (("key", 1, "string"), ("value", 2, "SingleLayerRecord")),  # the vendor's spelling
    "ScaleOffsetRecord": (("record", 1, "repeated MapFiledEntry"),),
}
"""The record of its ONNX flavour."""
USED = frozenset("scale_d offset_d scale_w offset_w act_type wts_type skip_fusion".split())
AGAIN = "Write the record again."


@dataclass(frozen=True)
class LayerFactors:
    """The factors of one layer.

    Attributes:
        scale_d: activation scale, a positive float32 number.
        offset_d: activation zero point, in [-128, 127].
        scale_w: weight scales, positive float32 numbers: one, or one for each output channel.
    """

    scale_d: float
    offset_d: int
    scale_w: tuple[float, ...]


@dataclass(frozen=True)
class FactorRecord:
    """A whole record.

    Attributes:
        layers: layer name -> its factors.
        ignored: names of fields that were given and have no meaning here, or that no record has.
        text: what was read.
    """

    layers: dict[str, LayerFactors]
    ignored: tuple[str, ...]
    text: str


def read_record(path: str | os.PathLike[str]) -> FactorRecord:
    """Read a record.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFileError: It is not the text of a record.
        FactorError: A layer's factors are missing, out of range, or of another type than INT8.
    """
    file = Path(path)
    try:
        content = read_bounded(file).decode()
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{file}: no such file. Check the path of the record.") from error
    except (OSError, ValueError) as error:
        raise _no_record(os.fspath(file), error) from error
    return parse_record(content, os.fspath(file))


def _no_record(file: str, error: Exception) -> ModelFileError:
    reason = " ".join(str(error).split())
    return ModelFileError(f"{file}: is not a record of quantization factors ({reason}). {AGAIN}")


def parse_record(content: str, file: str) -> FactorRecord:
    """Read the text of a record; ``file`` is where it stands, for messages.

    Raises:
        ModelFileError: It is not the text of a record.
        FactorError: A layer's factors are missing, out of range, or of another type than INT8.
    """
    try:
        message = message_classes("amct_onnx.record", MESSAGES)["ScaleOffsetRecord"]()
        text_format.Parse(content, message, allow_unknown_field=True)
    except (ValueError, text_format.ParseError, RecursionError) as error:
        raise _no_record(file, error) from error
    layers: dict[str, LayerFactors] = {}
    ignored = _unknown_fields(content)
    for entry in message.record:
        place = f"{file}: layer '{entry.key}'"
        if entry.key in layers:
            raise FactorError(f"{place} stands there twice. {AGAIN}")
        layers[entry.key] = _factors(entry.value, place)
        ignored |= {f.name for f, _ in entry.value.ListFields()} - USED
    if not layers:
        raise ModelFileError(f"{file}: holds no layer. {AGAIN}")
    return FactorRecord(layers, tuple(sorted(ignored)), content)


def _unknown_fields(text: str) -> set[str]:
    """Names of fields that no record has, without those within them; a parser passes over them in silence."""
    known = {name for fields in MESSAGES.values() for name, _, _ in fields}
    found: set[str] = set()
    inside: list[bool] = []  # of a message that is unknown
    name = before = ""
    tokens = text_format.Tokenizer(text.split("\n"))
    while not tokens.AtEnd():
        token = tokens.token
        if token in (":", "{", "<") and before.isidentifier():
            name = before
            if name not in known and not any(inside):
                found.add(name)
        if token in ("{", "<"):
            inside.append(name not in known)
        elif token in ("}", ">"):
            inside.pop()
        before = token
        tokens.NextToken()
    return found


def _factors(value: Message, place: str) -> LayerFactors:
    given = {field.name: content for field, content in value.ListFields()}
    for name in ("act_type", "wts_type"):
        if given.get(name, "INT8") != "INT8":
            raise FactorError(f"{place} has {name} '{given[name]}': only INT8 is converted. Quantize it to INT8.")
    if any(factor != 1 for factor in given.get("tensor_balance_factor", ())):
        raise FactorError(
            f"{place} has a tensor_balance_factor: its scales are those of an activation and a weight that were "
            "multiplied, which this conversion does not do. Write the record without balancing."
        )
    for name in ("scale_d", "offset_d", "scale_w", "offset_w"):
        if name not in given:
            raise FactorError(f"{place} lacks {name}. {AGAIN}")
    scale_w, offset_w = tuple(given["scale_w"]), tuple(given["offset_w"])
    for scale in (given["scale_d"], *scale_w):
        if not (math.isfinite(scale) and scale > 0):
            raise FactorError(f"{place} has the scale {scale}, which is not positive and finite. {AGAIN}")
    if not -128 <= given["offset_d"] <= 127:
        raise FactorError(f"{place} has offset_d {given['offset_d']}, outside [-128, 127]. {AGAIN}")
    if any(offset_w):
        raise FactorError(f"{place} has an offset_w that is not 0. Quantize the weight symmetrically.")
    if len(offset_w) not in (1, len(scale_w)):
        raise FactorError(f"{place} has {len(scale_w)} scale_w and {len(offset_w)} offset_w. {AGAIN}")
    return LayerFactors(given["scale_d"], given["offset_d"], scale_w)
