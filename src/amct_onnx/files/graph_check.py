"""Check a graph's claims before any later stage relies on them: names, definitions, arities, attributes.

Operators of the default domain are held to their schema in the installed onnx, so that every later stage may take
required inputs and attributes for granted. Types and shapes of activations are not checked: exporters declare them
wrongly, and nothing here needs them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.defs import OpSchema

from amct_onnx.errors import ModelFileError
from amct_onnx.graph.marks import texts_of

MAX_OPSET = 1000
"""A version far above every published opset."""
DEFAULT_DOMAINS = ("", "ai.onnx")
LIKE_DEFAULT = {"com.microsoft": ("QuantizeLinear", "DequantizeLinear")}
"""Operators of other domains that are read as those of the default domain."""
INTERNAL = "__"
"""Prefix of extra attributes that ONNX allows."""
AGAIN = "Export the model again."


def check_graph(model: ir.Model, path: Path) -> list[ir.Graph]:
    """Check a model's graphs, bodies and functions against what ONNX requires.

    Returns:
        The main graph, the bodies of functions, and all graphs inside them.

    Raises:
        ModelFileError: A name that is not UTF-8, a tensor that nothing defines, an input, output or attribute that the
            operator does not have or that is missing, or an opset that cannot exist.
    """
    around = [*_fields_of(model), *_flat(model.metadata_props), *model.opset_imports]
    _check_text(path, [*around, *(n for f in model.functions for n in f)])
    _check_opsets(path, model.opset_imports)
    graphs = _check_nodes(path, model.graph, _version(model.opset_imports), in_function=False)
    for function in model.functions.values():
        _check_opsets(path, function.opset_imports)
        graphs += _check_nodes(path, function.graph, _version(function.opset_imports), in_function=True)
    _check_calls(model, path)
    return graphs


def _version(imports: dict[str, int]) -> int:
    return next((v for d, v in imports.items() if d in DEFAULT_DOMAINS), 0)


def _check_opsets(path: Path, imports: dict[str, int]) -> None:
    for domain, version in imports.items():
        # versions of other domains are not known here
        if domain in DEFAULT_DOMAINS and not 1 <= version <= MAX_OPSET:
            raise ModelFileError(
                f"{path}: imports version {version} of opset '{domain}', which does not exist. {AGAIN}"
            )


def _check_nodes(path: Path, root: ir.Graph, version: int, *, in_function: bool) -> list[ir.Graph]:
    """Check a graph and those inside it, and return them."""
    try:
        graphs = [root, *root.subgraphs()]
    except TypeError as error:
        raise ModelFileError(f"{path}: an attribute that should hold a graph is empty ({error}). {AGAIN}") from error
    for graph in graphs:
        _check_text(path, [*_texts_of(graph), *graph.initializers])
        for value in [*graph.inputs, *graph.initializers.values(), *graph.outputs]:
            _check_text(path, _texts_of(value))
        for output in graph.outputs:
            if not _is_defined(output):
                raise ModelFileError(f"{path}: nothing defines the graph output '{output.name}'. {AGAIN}")
    for node in (n for graph in graphs for n in graph):
        _check_text(path, [*_texts_of(node), node.op_type])
        for output in node.outputs:
            _check_text(path, _texts_of(output))
        for read in node.inputs:
            if read is not None and not _is_defined(read):
                _check_text(path, [read.name])
                raise _error(path, node, f"reads tensor '{read.name}', which nothing defines")
        if node.attributes:
            _check_text(path, node.attributes)
            _check_references(path, node, in_function)
        if node.domain not in DEFAULT_DOMAINS and node.op_type not in LIKE_DEFAULT.get(node.domain, ()):
            continue
        operator = _operator(node.op_type, version)
        if operator is not None:
            _check_against(path, node, operator)
    return graphs


def _check_references(path: Path, node: ir.Node, in_function: bool) -> None:
    for name, attribute in node.attributes.items():
        if attribute.is_ref() and not in_function:
            raise _error(path, node, f"takes the attribute '{name}' from a function, but belongs to none")


def _is_defined(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.is_initializer()


def _check_calls(model: ir.Model, path: Path) -> None:
    names = {(f.domain, f.name) for f in model.functions.values()}
    for graph in [model.graph, *(f.graph for f in model.functions.values())] if model.functions else []:
        for node in ir.traversal.RecursiveGraphIterator(graph):
            function = model.functions.get(node.op_identifier())
            if function is None:
                if (node.domain, node.op_type) in names:
                    raise _error(
                        path, node, f"calls the overload '{node.overload}' of a function that does not have it"
                    )
                continue
            for kind, given, known in (
                ("inputs", node.inputs, function.inputs),
                ("outputs", node.outputs, function.outputs),
            ):
                if len(given) > len(known):
                    raise _error(path, node, f"has {len(given)} {kind}; the function of this name has {len(known)}")


@dataclass(frozen=True)
class _Parameters:
    """The inputs or the outputs of an operator.

    Attributes:
        kind: which of the two, for people.
        low: the fewest.
        high: the most.
        required: number and name of those that a node must name.
    """

    kind: str
    low: int
    high: int
    required: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class _Operator:
    """What a node is held to.

    Attributes:
        inputs, outputs: how many, and which are required.
        kinds: the attribute types of this version, and of the newest where only that has an attribute.
        required: names of required attributes.
    """

    inputs: _Parameters
    outputs: _Parameters
    kinds: dict[str, int]
    required: tuple[str, ...]


@lru_cache(maxsize=1024)
def _operator(op_type: str, version: int) -> _Operator | None:
    """An operator of the default domain; None for one that it does not have.

    Kept, because onnx makes new objects of the whole schema each time it is asked.
    """
    try:
        schema = onnx.defs.get_schema(op_type, max(1, version), "")
        newest = onnx.defs.get_schema(op_type, MAX_OPSET, "")
    except onnx.defs.SchemaError:
        return None
    # exporters write attributes of later versions; they are read as in these
    return _Operator(
        _Parameters("inputs", schema.min_input, schema.max_input, _required(schema.inputs)),
        _Parameters("outputs", schema.min_output, schema.max_output, _required(schema.outputs)),
        {n: _kind(a) for n, a in (*newest.attributes.items(), *schema.attributes.items())},
        tuple(n for n, a in schema.attributes.items() if a.required),
    )


def _required(parameters: Iterable[OpSchema.FormalParameter]) -> tuple[tuple[int, str], ...]:
    single = OpSchema.FormalParameterOption.Single
    return tuple((i, p.name) for i, p in enumerate(parameters) if p.option == single)


def _check_against(path: Path, node: ir.Node, operator: _Operator) -> None:
    for values, known in ((node.inputs, operator.inputs), (node.outputs, operator.outputs)):
        if not known.low <= len(values) <= known.high:
            has = f"has {len(values)} {known.kind}; the operator has {_span(known.low, known.high)}"
            raise _error(path, node, has)
        for index, name in known.required:
            if index < len(values) and ((value := values[index]) is None or value.name == ""):
                raise _error(path, node, f"lacks '{name}', number {index} of its {known.kind}")
    for name, attribute in node.attributes.items():
        kind = operator.kinds.get(name)
        if kind is None and name.startswith(INTERNAL):
            continue
        if kind is None:
            raise _error(path, node, f"has the attribute '{name}', which the operator does not know")
        if not attribute.is_ref() and kind != int(attribute.type):
            raise _error(path, node, f"attribute '{name}' is of type {attribute.type.name}, which it does not take")
        if isinstance(attribute.value, bytes):
            text = attribute.value.decode(errors="backslashreplace")
            raise _error(path, node, f"has text that is not UTF-8 in attribute '{name}': '{text}'")
    for name in operator.required:
        if name not in node.attributes:
            raise _error(path, node, f"lacks the attribute '{name}'")


def _kind(attribute: OpSchema.Attribute) -> int:
    return int(attribute.type.value)  # type: ignore[attr-defined]


def _span(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"{low} or more" if high > 1000 else f"{low} to {high}"


def _error(path: Path, node: ir.Node, what: str) -> ModelFileError:
    return ModelFileError(f"{path}: node '{node.name}' ({node.op_type}) {what}. {AGAIN}")


TEXTS: dict[type, tuple[str, ...]] = {
    ir.Model: ("doc_string", "domain", "producer_name", "producer_version"),
    ir.Graph: ("name", "doc_string"),
    ir.Node: ("name", "doc_string", "domain", "overload"),
    ir.Value: ("name", "doc_string"),
}
"""The texts that the written model will hold of an item, apart from attributes, metadata and sizes."""


def _fields_of(item: ir.Model | ir.Graph | ir.Node | ir.Value) -> list[object]:
    return [getattr(item, field) for field in TEXTS[type(item)]]


def _texts_of(item: ir.Graph | ir.Node | ir.Value) -> list[object]:
    """Every text that the written model will hold of an item, apart from attributes."""
    found = _fields_of(item)
    if texts := texts_of(item):
        found += _flat(texts)
    if type(item) is ir.Value:
        if item.type is not None:
            found.append(item.type.denotation)
        if item.shape is not None:
            found += [size.value for size in item.shape.dims if not isinstance(size, int)]
            found += map(item.shape.get_denotation, range(len(item.shape.dims)))
    return found


def check_tensor_text(path: Path, tensor: ir.TensorProtocol) -> None:
    """Check a tensor's doc string and metadata; its name is written only where it is an initializer's.

    Raises:
        ModelFileError: One is not UTF-8.
    """
    _check_text(path, [tensor.doc_string, *_flat(tensor.metadata_props)])


def _flat(texts: Mapping[str, str]) -> list[str]:
    return [text for entry in texts.items() for text in entry]


def _check_text(path: Path, names: Collection[object]) -> None:
    """Protobuf hands out a name that is not UTF-8 as bytes."""
    if bytes not in map(type, names):
        return
    name = next(n for n in names if isinstance(n, bytes)).decode(errors="backslashreplace")
    raise ModelFileError(f"{path}: the name '{name}' is not UTF-8. Export or download the model again.")
