"""Read a record of quantization factors: protobuf text of ScaleOffsetRecord, as the vendor's tools and PPQ write it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

from amct_onnx.common.typed_json import read_bounded
from amct_onnx.errors import FactorError, ModelFileError, ModelNotFoundError

PACKAGE = "amct_onnx.record"
FIELDS = (
    ("scale_d", 1, "float", False),
    ("offset_d", 2, "int32", False),
    ("scale_w", 3, "float", True),
    ("offset_w", 4, "int32", True),
    ("shift_bit", 5, "uint32", True),
    ("skip_fusion", 6, "bool", False),
    ("is_tensor_quantize", 10, "bool", False),
    ("tensor_balance_factor", 13, "float", True),
    ("op_data_type", 15, "string", False),
    ("act_type", 20, "string", False),
    ("wts_type", 21, "string", False),
)
"""Of SingleLayerRecord: name, number, type, whether repeated."""
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
        ignored: names of fields that were given and have no meaning here.
    """

    layers: dict[str, LayerFactors]
    ignored: tuple[str, ...]


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
        message = _message_class()()
        text_format.Parse(content, message, allow_unknown_field=True)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"{file}: no such file. Check the path of the record.") from error
    except (OSError, ValueError, text_format.ParseError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(f"{file}: is not a record of quantization factors ({reason}). {AGAIN}") from error
    layers: dict[str, LayerFactors] = {}
    ignored: set[str] = set()
    for entry in message.record:
        place = f"{file}: layer '{entry.key}'"
        if entry.key in layers:
            raise FactorError(f"{place} stands there twice. {AGAIN}")
        layers[entry.key] = _factors(entry.value, place)
        ignored |= {f.name for f, _ in entry.value.ListFields()} - USED
    if not layers:
        raise ModelFileError(f"{file}: holds no layer. {AGAIN}")
    return FactorRecord(layers, tuple(sorted(ignored)))


def _factors(value: Message, place: str) -> LayerFactors:
    given = {field.name: content for field, content in value.ListFields()}
    for name in ("act_type", "wts_type"):
        if given.get(name, "INT8") != "INT8":
            raise FactorError(f"{place} has {name} '{given[name]}': only INT8 is converted. Quantize it to INT8.")
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


def _message_class() -> type[Message]:
    """ScaleOffsetRecord, built from the field numbers of its ONNX flavour."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="amct_onnx_record.proto", package=PACKAGE, syntax="proto2")
    layer = file.message_type.add(name="SingleLayerRecord")
    for name, number, kind, repeated in FIELDS:
        layer.field.add(
            name=name,
            number=number,
            type=getattr(types, f"TYPE_{kind.upper()}"),
            label=types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL,
        )
    entry = file.message_type.add(name="MapFiledEntry")  # the vendor's spelling
    entry.field.add(name="key", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=types.TYPE_MESSAGE,
        label=types.LABEL_OPTIONAL,
        type_name=f".{PACKAGE}.SingleLayerRecord",
    )
    record = file.message_type.add(name="ScaleOffsetRecord")
    record.field.add(
        name="record",
        number=1,
        type=types.TYPE_MESSAGE,
        label=types.LABEL_REPEATED,
        type_name=f".{PACKAGE}.MapFiledEntry",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.ScaleOffsetRecord"))
    return made
