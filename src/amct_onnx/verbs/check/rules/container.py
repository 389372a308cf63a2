"""Rules on the file as a whole: graph ends, opset, functions, names, order, data outside the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from amct_onnx.verbs.check.model_view import CUBE, ModelView, Scope, constant
from amct_onnx.verbs.check.report import ERROR, NOTE, WARNING
from amct_onnx.verbs.check.rule import Hit, rule

PARSER = "ge: parser/parser/onnx/onnx_parser.cc"
OPSET_RANGES = {**dict.fromkeys(CUBE, (8, 18)), "AscendQuant": (8, 22), "AscendDequant": (8, 22)}
OPSET_RANGES["AscendAntiQuant"] = (8, 22)
"""Opset versions for which an operator's plugin is registered, both ends included."""
DOCUMENTED_OPSETS = (11, 18)
PROTOBUF_LIMIT = 2**31 - 1
"""Bytes that one protobuf message can hold."""
UNREAD_TYPES = frozenset({"UINT4", "INT2", "UINT2", "FLOAT4E2M1", "FLOAT8E8M0"})
"""Element types that the parser's table does not name."""


@rule(
    id="no-graph-input",
    severity=ERROR,
    title="Graph without input",
    why="The parser stops on a root graph without inputs (E16001).",
    source=PARSER,
    remedy="Export the model with at least one input.",
)
def no_graph_input(view: ModelView) -> Iterator[Hit]:
    """The root graph has no input."""
    if not view.model.graph.inputs:
        yield Hit("the graph has no input")


@rule(
    id="no-graph-output",
    severity=ERROR,
    title="Graph without output",
    why="The parser stops on a graph without outputs (E16001).",
    source=PARSER,
    remedy="Export the model with its outputs.",
)
def no_graph_output(view: ModelView) -> Iterator[Hit]:
    """The root graph has no output."""
    if not view.model.graph.outputs:
        yield Hit("the graph has no output")


@rule(
    id="output-not-produced",
    severity=ERROR,
    title="Graph output that nothing produces",
    why="The parser looks every graph output up among the nodes' results and stops when it is not there (E19999).",
    source=PARSER,
    remedy="Export the model again; if a tool renamed tensors, rename the output as well.",
)
def output_not_produced(view: ModelView) -> Iterator[Hit]:
    """A graph output that no node produces."""
    for scope in view.scopes:
        for value in scope.graph.outputs:
            if value.producer() is None and not value.is_graph_input() and not value.is_initializer():
                yield Hit("nothing produces this graph output", tensor=value.name or "")


@rule(
    id="input-not-produced",
    severity=ERROR,
    title="Node input that nothing produces",
    why="The parser only warns and leaves the input open: the operator fails later or runs without it.",
    source=PARSER,
    remedy="Export the model again; if a tool renamed tensors, rename the input as well.",
)
def input_not_produced(view: ModelView) -> Iterator[Hit]:
    """A node input that nothing produces."""
    for node in view.nodes():
        for value in node.inputs:
            if value is None or value.producer() is not None or value.is_graph_input() or value.is_initializer():
                continue
            yield Hit("nothing produces this input", view.names[node], value.name or "")


@rule(
    id="opset-entries",
    severity=ERROR,
    title="Several opset_import entries",
    why="ATC's documentation allows one entry; compilers that enforce it stop with E16005.",
    source="CANN documentation of ATC and of E16005 (ge: error tables)",
    remedy="Replace operators of other domains and keep only the entry of the default one; `amct_onnx convert` "
    "drops entries that nothing uses.",
)
def opset_entries(view: ModelView) -> Iterator[Hit]:
    """More than one opset_import."""
    entries = view.model.opset_imports
    if len(entries) > 1:
        listed = ", ".join(f"'{d}' {v}" for d, v in entries.items())
        yield Hit(f"{len(entries)} opset_import entries: {listed}")


@rule(
    id="opset-missing",
    severity=ERROR,
    title="No opset for the default domain",
    why="An operator is looked up as domain::version::type; without a version the parser stops (E19999).",
    source=PARSER,
    remedy="Add an opset_import entry for the default domain.",
)
def opset_missing(view: ModelView) -> Iterator[Hit]:
    """No version for the default domain."""
    if view.opset is None and any(not n.domain for n in view.nodes()):
        yield Hit("no opset_import entry for the default domain")


@rule(
    id="opset-unregistered",
    severity=ERROR,
    title="Operator not registered for this opset",
    why="The lookup takes the exact version, with no fallback to an earlier one: E16002. Conv, ConvTranspose, Gemm "
    "and MatMul are registered for opset 8 to 18, the Ascend operators for 8 to 22.",
    source=f"{PARSER}; ops-nn: common/src/framework/conv_onnx_plugin.cpp and its neighbours",
    remedy="Export with opset 11 to 18; `amct_onnx convert` lowers newer ones where the operators agree.",
)
def opset_unregistered(view: ModelView) -> Iterator[Hit]:
    """An operator whose plugin is not registered for the model's opset."""
    version = view.opset
    for op_type, (low, high) in OPSET_RANGES.items():
        nodes = list(view.nodes(op_type))
        if nodes and version is not None and not low <= version <= high:
            first = view.names[nodes[0]]
            yield Hit(f"{op_type} ({len(nodes)} nodes) is registered for opset {low}..{high}, not {version}", first)


@rule(
    id="opset-undocumented",
    severity=WARNING,
    title="Opset outside the documented range",
    why="The documentation of ATC promises opset 11 to 18; elsewhere single operators may have no plugin (E16002).",
    source="CANN documentation of ATC",
    remedy="Export with opset 11 to 18.",
)
def opset_undocumented(view: ModelView) -> Iterator[Hit]:
    """An opset outside the documented range."""
    low, high = DOCUMENTED_OPSETS
    if view.opset is not None and not low <= view.opset <= high:
        yield Hit(f"opset {view.opset}")


@rule(
    id="local-functions",
    severity=ERROR,
    title="Model-local functions",
    why="The parser does not expand functions: a call is an unknown operator (E16002).",
    source=PARSER,
    remedy="Inline the functions (onnx.inliner); `amct_onnx convert` does so.",
)
def local_functions(view: ModelView) -> Iterator[Hit]:
    """Model-local functions."""
    if view.model.functions:
        names = sorted({str(key[1]) for key in view.model.functions})
        yield Hit(f"{len(names)} model-local functions: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")


@rule(
    id="duplicate-name",
    severity=ERROR,
    title="Node name used twice",
    why="Names must be unique in ATC's graph (E13009). A graph input becomes a node of its own name, an "
    "initializer a node <name>_Initializer_<n>.",
    source=f"{PARSER}; ge: parser/parser/common/pre_checker.cc",
    remedy="Rename one of them.",
)
def duplicate_names(view: ModelView) -> Iterator[Hit]:
    """Names that ATC's nodes would share, counting inputs and the names it gives to constants and unnamed nodes."""
    for scope in view.scopes:
        graph = scope.graph
        names = [(view.names[n], view.names[n]) for n in graph]
        names += [(v.name or "", f"graph input '{v.name}'") for v in graph.inputs if v.name not in graph.initializers]
        names += [(f"{n}_Initializer_{i}", f"the constant '{n}'") for i, n in enumerate(sorted(graph.initializers))]
        count = Counter(name for name, _ in names)
        reported: set[str] = set()
        for name, what in reversed(names):
            if count[name] > 1 and name not in reported:
                reported.add(name)
                also = "" if what == name else f", one of them {what}"
                yield Hit(f"{count[name]} nodes of ATC's graph would be called '{name}'{also}", name)


@rule(
    id="unnamed-node",
    severity=NOTE,
    title="Nodes without name",
    why="The parser names them <type>_<n>; messages and dumps then show names that the file does not have.",
    source=PARSER,
    remedy="Name every node; `amct_onnx convert` does so.",
)
def unnamed_nodes(view: ModelView) -> Iterator[Hit]:
    """Nodes without a name."""
    unnamed = [n for n in view.nodes() if not n.name]
    if unnamed:
        yield Hit(f"{len(unnamed)} nodes have no name; the first is called by ATC", view.names[unnamed[0]])


@rule(
    id="cycle",
    severity=ERROR,
    title="Cyclic graph",
    why="Nodes that wait for each other cannot be ordered, neither by ONNX nor by ATC.",
    source="ONNX specification: graphs are acyclic",
    remedy="Export the model again.",
)
def cycle(view: ModelView) -> Iterator[Hit]:
    """A cycle, found by removing nodes whose inputs are all there (Kahn's algorithm), one graph at a time."""
    needs: dict[ir.Node, set[ir.Node]] = {n: set() for n in view.nodes()}
    for scope in view.scopes:
        for node in scope.graph:
            for value in node.inputs:
                producer = value.producer() if value is not None else None
                if producer is not None:
                    reader = _holder_in(producer.graph, node, scope)
                    if reader is not None:
                        needs[reader].add(producer)
    readers: dict[ir.Node, list[ir.Node]] = {}
    missing = {node: len(sources) for node, sources in needs.items()}
    for node, sources in needs.items():
        for source in sources:
            readers.setdefault(source, []).append(node)
    ready = [n for n, count in missing.items() if not count]
    done = 0
    while ready:
        node = ready.pop()
        done += 1
        for reader in readers.get(node, ()):
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    if done < len(missing):
        stuck = [n for n, count in missing.items() if count]
        yield Hit(f"{len(stuck)} nodes wait for each other's results or lie behind such nodes", view.names[stuck[0]])


def _holder_in(graph: object, node: ir.Node, scope: Scope) -> ir.Node | None:
    """The node of ``graph`` that is ``node`` or holds it in a nested graph."""
    current: Scope | None = scope
    while current is not None:
        if current.graph is graph:
            return node
        if current.holder is None:
            return None
        node, current = current.holder, current.outer
    return None


@rule(
    id="external-missing",
    severity=ERROR,
    title="External data missing",
    why="Constants outside the file are read from the model's folder when ATC compiles.",
    source=PARSER,
    remedy="Copy the data file beside the model.",
)
def external_missing(view: ModelView) -> Iterator[Hit]:
    """External data that is not where the file says."""
    for name, tensor, _ in view.tensors():
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        path = _external_path(view, tensor)
        try:
            size = path.stat().st_size if path.is_file() else None
        except (OSError, ValueError):
            size = None
        if size is None:
            yield Hit(f"its data file '{tensor.location}' does not exist", tensor=name)
        elif (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes) > size:
            yield Hit(f"its data lies beyond the end of '{tensor.location}'", tensor=name)


@rule(
    id="external-absolute",
    severity=ERROR,
    title="External data under an absolute path",
    why="ATC puts the model's folder in front of the location as it stands, so an absolute path leads nowhere.",
    source=f"{PARSER} (SetExternalPath)",
    remedy="Save the model again with its data in the same folder.",
)
def external_absolute(view: ModelView) -> Iterator[Hit]:
    """External data whose location is an absolute path."""
    for name, tensor, _ in view.tensors():
        if isinstance(tensor, ir.ExternalTensor) and Path(tensor.location).is_absolute():
            yield Hit(f"its data file is '{tensor.location}'", tensor=name)


def _external_path(view: ModelView, tensor: ir.ExternalTensor) -> Path:
    where = Path(tensor.path)
    return where if where.is_absolute() or view.folder is None else view.folder / Path(tensor.location)


@rule(
    id="external-parameter",
    severity=WARNING,
    title="Quantization parameter in external data",
    why="A constant outside the file becomes FileConstant; the quantization passes look for Const. That they pass "
    "over it is inferred, not proven.",
    source=f"{PARSER}; ge: quant_pass/",
    remedy="Save weights, biases and deq_scale of int8 layers inside the file.",
)
def external_parameter(view: ModelView) -> Iterator[Hit]:
    """A weight, bias or deq_scale of an int8 layer in external data."""
    for layer in view.layers:
        scales = [constant(d.inputs[1]) for d in layer.dequants if len(d.inputs) > 1]
        for label, tensor in [
            ("weight", layer.weight),
            ("bias", constant(layer.bias)),
            *(("scale", s) for s in scales),
        ]:
            if isinstance(tensor, ir.ExternalTensor):
                yield Hit(f"its {label} lies in '{tensor.location}'", view.names[layer.node], tensor.name or "")


@rule(
    id="file-too-large",
    severity=ERROR,
    title="More than 2 GB in one file",
    why="Protobuf cannot hold more than 2 GB in one message.",
    source="protobuf documentation",
    remedy="Save large float constants as external data.",
)
def too_large(view: ModelView) -> Iterator[Hit]:
    """More bytes inside the file than protobuf holds."""
    inline = sum(t.nbytes for _, t, _ in view.tensors() if not isinstance(t, ir.ExternalTensor))
    if inline > PROTOBUF_LIMIT:
        yield Hit(f"{inline} bytes of constants inside the file")


@rule(
    id="constant-type",
    severity=WARNING,
    title="Constant of an unknown element type",
    why="The parser's table of element types names the ordinary ones, BFLOAT16, the float8 family and INT4.",
    source="ge: parser/parser/onnx/onnx_util.cc",
    remedy="Store the constant in a type that the table names.",
)
def unread_type(view: ModelView) -> Iterator[Hit]:
    """A constant of an element type that the parser does not name."""
    for name, tensor, _ in view.tensors():
        if tensor.dtype.name in UNREAD_TYPES:
            yield Hit(f"element type {tensor.dtype.name}", tensor=name)


@rule(
    id="dynamic-input",
    severity=NOTE,
    title="Graph input of unknown size",
    why="Unknown dimensions become -1. A quantized model is compiled for fixed shapes: the dynamic-shape "
    "options of ATC are excluded for it.",
    source=f"{PARSER}; CANN documentation of ATC",
    remedy="Give --input_shape to ATC.",
)
def dynamic_input(view: ModelView) -> Iterator[Hit]:
    """A graph input of unknown size."""
    constants = view.model.graph.initializers
    for value in view.model.graph.inputs:
        if value.name in constants:
            continue
        if value.shape is None:
            yield Hit("its shape is not in the file", tensor=value.name or "")
        elif any(not isinstance(d, int) or d < 0 for d in value.shape):
            shape = ", ".join(str(d) for d in value.shape)
            yield Hit(f"its shape is [{shape}]", tensor=value.name or "")
