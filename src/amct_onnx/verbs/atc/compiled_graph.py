"""The graph that ATC built, as ``atc --mode=1 --om=x.om --json=x.json`` prints it.

The layout is that of GE's model protobuf in JSON (ge: proto/ge_ir.proto): a list of graphs, each with its operators.
Fields that are not needed here are passed over, whatever they hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from amct_onnx.common.plain_text import shown
from amct_onnx.common.typed_json import ContentError, decode, read_bounded
from amct_onnx.errors import ModelFileError, ModelNotFoundError

ORIGINAL_NAMES = "_datadump_original_op_names"
ORIGIN_NAME = "_datadump_origin_name"


class _Texts(msgspec.Struct, frozen=True):
    s: tuple[str, ...] = ()


class _Value(msgspec.Struct, frozen=True):
    s: str = ""
    list: _Texts = _Texts()


class _Attribute(msgspec.Struct, frozen=True):
    key: str
    value: _Value = _Value()


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str = ""
    attr: tuple[msgspec.Raw, ...] = ()


class _Operator(msgspec.Struct, frozen=True):
    name: str
    type: str
    input_desc: tuple[_Tensor, ...] = ()
    output_desc: tuple[_Tensor, ...] = ()
    attr: tuple[msgspec.Raw, ...] = ()


class _Graph(msgspec.Struct, frozen=True):
    name: str = ""
    op: tuple[_Operator, ...] = ()


class _Model(msgspec.Struct, frozen=True):
    graph: tuple[_Graph, ...]
    name: str = ""


@dataclass(frozen=True)
class CompiledOperator:
    """One operator of the compiled graph.

    Attributes:
        name: in the compiled graph.
        type: of GE, for example Conv2D or AscendQuant.
        originals: names of the file's nodes that it was made of; empty when the compiler made it, or does not tell.
        input_types, output_types: element types, for example DT_INT8.
    """

    name: str
    type: str
    originals: tuple[str, ...]
    input_types: tuple[str, ...]
    output_types: tuple[str, ...]


def read_compiled_graph(path: str | os.PathLike[str]) -> tuple[CompiledOperator, ...]:
    """All operators of all graphs, in the file's order.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFileError: It is not what ``atc --mode=1`` writes; the field is named.
    """
    try:
        model = decode(read_bounded(path), _Model)
    except FileNotFoundError as error:
        raise ModelNotFoundError(
            f"{os.fspath(path)}: no such file. Write it with 'atc --mode=1 --om=x.om --json=x.json'."
        ) from error
    except (OSError, ContentError) as error:
        raise ModelFileError(
            f"{os.fspath(path)}: not a compiled graph in JSON ({shown(str(error))}). Write it with 'atc --mode=1 "
            "--om=x.om --json=x.json'."
        ) from error
    return tuple(_operator(o) for graph in model.graph for o in graph.op)


def _operator(found: _Operator) -> CompiledOperator:
    originals = [t for a in _attributes(found.attr, ORIGINAL_NAMES) for t in a.value.list.s]
    originals += [a.value.s for d in found.output_desc for a in _attributes(d.attr, ORIGIN_NAME)]
    return CompiledOperator(
        found.name,
        found.type,
        tuple(dict.fromkeys(t for t in originals if t)),
        tuple(d.dtype for d in found.input_desc),
        tuple(d.dtype for d in found.output_desc),
    )


def _attributes(raw: tuple[msgspec.Raw, ...], key: str) -> Iterator[_Attribute]:
    """The attributes of a key; others may hold anything, and are not decoded."""
    wanted = f'"{key}"'.encode()
    for item in raw:
        if wanted not in bytes(item):
            continue
        try:
            attribute = msgspec.json.decode(item, type=_Attribute)
        except msgspec.MsgspecError:
            continue
        if attribute.key == key:
            yield attribute
