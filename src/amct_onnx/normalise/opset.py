"""Bring the default domain's opset into 11..18, node by node.

ATC's Conv, ConvTranspose, Gemm and MatMul plugins are registered for opset 8..18; the fake-quant model needs 11 (Clip
with three inputs, Round). A node of a newer opset is

- relabelled, when its operator in opset 18 is the same: same inputs, outputs and attributes, types that opset 18 takes,
  and attributes that opset 18 lacks absent or at their default value;
- rewritten, when it differs in a way that opset 18 can say (REWRITES);
- replaced by the function body that the ONNX specification gives for it;
- else the reason for a refusal. Schemas and bodies are those of the installed onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.defs import OpSchema

from amct_onnx.errors import UnsupportedModelError
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import known_as, nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.shapes import infer_shapes
from amct_onnx.normalise.cast_like import spell_out_cast_like
from amct_onnx.normalise.old_operators import PADS_AS_INPUTS, give_pads_as_inputs, keep_meaning
from amct_onnx.normalise.operator_bodies import OperatorBodies, schema_of
from amct_onnx.normalise.small_types import is_small, may_stay_small, write_casts_as_quantizers
from amct_onnx.normalise.unregistered_operators import lower_unregistered
from amct_onnx.normalise.widened_types import widen_small_types

OLDEST_OPSET = 11
"""Oldest opset of the outputs: the fake-quant model needs Clip with three inputs, and Round."""
RAISED_OPSET = 13
"""Opset to which a model below OLDEST_OPSET is raised."""
NEWEST_OPSET = 18
"""ATC's Conv, ConvTranspose, Gemm and MatMul plugins are registered for opset 8..18; fake-quant needs 11."""
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
"""Operators that stay as they are: none is left in the outputs, and the planner knows every version."""


def normalise_opset(model: ir.Model) -> ir.Model:
    """Return the model with a default opset of 11..18 under the domain name "", bodies of control flow included.

    Raises:
        UnsupportedModelError: A node that the opset of the outputs cannot express.
    """
    version = opset_of(model)
    for node in nodes_of(model):
        if node.domain == "ai.onnx":
            node.domain = ""
    model.opset_imports.pop("ai.onnx", None)
    model.opset_imports[""] = version
    if version < OLDEST_OPSET:
        model = _raised(model, version)
    elif version > NEWEST_OPSET:
        _Lowering(model, version).run()
    lower_unregistered(model)
    spell_out_cast_like(model)
    return model


def _raised(model: ir.Model, version: int) -> ir.Model:
    """Raise the opset with onnx's converter. What it leaves in a form unknown to the new opset is refused."""
    try:
        result = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), RAISED_OPSET))
    except Exception as error:  # the converter raises RuntimeError and its own classes
        raise UnsupportedModelError(
            f"Opset {version} cannot be raised to {RAISED_OPSET} ({error}). Export with opset 11 to 18."
        ) from error
    for name, value in model.graph.initializers.items():
        if name in result.graph.initializers:  # external data is found again by the tensor that was read
            result.graph.initializers[name].const_value = value.const_value
    for declared, value in zip(model.graph.outputs, result.graph.outputs, strict=True):
        value.shape = declared.shape  # the converter infers, and makes up names for open axes
    check_raised(result, version, RAISED_OPSET)
    return result


def check_raised(model: ir.Model, version: int, target: int) -> None:
    """See that onnx's converter has raised every node, and let those whose meaning it changed keep it.

    Raises:
        UnsupportedModelError: A node that it leaves in its old form, or whose meaning the new opset cannot say.
    """
    if version < PADS_AS_INPUTS <= target:
        give_pads_as_inputs(model)
    constants = ConstantEvaluator(target)
    for node in nodes_of(model):
        if node.domain != "":
            continue
        new, old = schema_of(node.op_type, target), schema_of(node.op_type, version)
        if old is None and new is None:
            continue  # not an operator of the specification, so it has no opset
        if new is None or new.deprecated or set(node.attributes) - set(new.attributes) or _wrong_count(node, new):
            raise _refusal(node, version, target, "the converter of onnx leaves it in its old form")
        why = keep_meaning(node, version, constants)
        if why:
            raise _refusal(node, version, target, why)


class _Lowering:
    """Lowers one model from a newer opset to NEWEST_OPSET."""

    def __init__(self, model: ir.Model, version: int) -> None:
        newest = onnx.defs.onnx_opset_version()
        if version > newest:
            raise UnsupportedModelError(
                f"The model is of opset {version}; the installed onnx {onnx.__version__} knows {newest} at most. "
                "Install a newer onnx, or export with opset 18 or lower."
            )
        self._model = model
        self._version = version
        self._bodies = OperatorBodies(model, NEWEST_OPSET)
        self._constants = ConstantEvaluator(version)

    def run(self) -> None:
        """Rewrite the model in place."""
        nodes = nodes_of(self._model)
        silent = any(v.dtype is None or v.shape is None for n in nodes for v in n.outputs if n.op_type != "Constant")
        # onnx's inference crashes on inputs without a type
        if silent and all(v.type is not None for v in self._model.graph.inputs):
            # whether opset 18 takes a node may depend on a type or rank that the model does not state
            infer_shapes(self._model, strict=True)
        spell_out_cast_like(self._model)  # of these, the next two know the types
        write_casts_as_quantizers(self._model)
        widen_small_types(self._model)
        self._lower(nodes_of(self._model), self._version)
        self._model.opset_imports[""] = NEWEST_OPSET
        self._bodies.inline()

    def _lower(self, nodes: Iterable[ir.Node], version: int) -> None:
        for node in nodes:
            if node.domain == "" and node.op_type not in QUANTIZERS:
                self._lower_node(node, version)

    def _lower_node(self, node: ir.Node, version: int) -> None:
        new, old = schema_of(node.op_type, version), schema_of(node.op_type, NEWEST_OPSET)
        if new is None or (old is not None and new.since_version == old.since_version):
            return  # the same operator, or one that is not of the specification
        why = REWRITES[node.op_type](node, self._model) if node.op_type in REWRITES else ""
        if old is None:
            why = "it does not exist there"
        elif not why:
            why = _difference(node, new, old) or ("" if self._is_led_back(node) else _type_difference(node, old))
        if why and not self._replaced_by_body(node, new, version):
            raise _refusal(node, version, NEWEST_OPSET, why)

    def _is_led_back(self, node: ir.Node) -> bool:
        """Whether nothing but types of 4 or 8 bits is new, and a later rule leads them back to floats."""
        small = any(is_small(v) for v in (*node.inputs, *node.outputs))
        return small and may_stay_small(node, self._constants)

    def _replaced_by_body(self, node: ir.Node, schema: Any, version: int) -> bool:
        """Turn the node into a call of its specification body; False when there is none."""
        replaced = self._bodies.replace(node, schema, version)
        if replaced is None:
            return False
        inner, imported = replaced
        if imported > NEWEST_OPSET:
            self._lower(inner, imported)
        return True


def _refusal(node: ir.Node, source: int, target: int, why: str) -> UnsupportedModelError:
    where = f"Node '{known_as(node)}'" if node.name else f"The node that makes '{node.outputs[0].name}'"
    return UnsupportedModelError(
        f"{where}: operator {node.op_type} of opset {source} has no form in opset {target}, that of the "
        f"output models: {why}. Export the model with opset {NEWEST_OPSET} or lower, or without this operator."
    )


def _wrong_count(node: ir.Node, schema: OpSchema) -> bool:
    return not schema.min_input <= len(node.inputs) <= schema.max_input


def _difference(node: ir.Node, new: OpSchema, old: OpSchema) -> str:
    """Why the node cannot be read as one of the old operator, or nothing; drops new attributes at their default."""
    for mine, theirs in ((new.inputs, old.inputs), (new.outputs, old.outputs)):
        # more inputs than before are all right while they are not used
        for a, b in zip(mine, theirs, strict=False):
            if a.option != b.option or a.is_homogeneous != b.is_homogeneous:
                return f"'{a.name}' is another parameter there"
    if len(node.inputs) > old.max_input or len(node.outputs) > old.max_output:
        return "it has more inputs or outputs than there"
    return _attribute_difference(node, new, old)


def _attribute_difference(node: ir.Node, new: OpSchema, old: OpSchema) -> str:
    for name in [n for n in node.attributes if n not in old.attributes]:
        default = new.attributes[name].default_value if name in new.attributes else onnx.AttributeProto()
        if not default.name or node.attributes[name].value != ir.serde.deserialize_attribute(default).value:
            return f"attribute '{name}' does not exist there"
        del node.attributes[name]
    for name, attribute in old.attributes.items():
        now = new.attributes.get(name)
        if name not in node.attributes and (now is None or attribute.default_value != now.default_value):
            return f"attribute '{name}' has another default there"
    return ""


def _type_difference(node: ir.Node, old: OpSchema) -> str:
    if node.op_type == "Constant":
        return ""  # a 4-bit weight in front of its DequantizeLinear: what else reads it is asked itself
    allowed = {c.type_param_str: c.allowed_type_strs for c in old.type_constraints}
    for values, parameters in ((node.inputs, old.inputs), (node.outputs, old.outputs)):
        for index, value in enumerate(values):
            if value is None or value.dtype is None or not parameters or not isinstance(value.type, ir.TensorType):
                continue
            kind = parameters[min(index, len(parameters) - 1)].type_str
            if f"tensor({value.dtype.name.lower()})" not in allowed.get(kind, [kind]):
                return f"tensor '{value.name}' of type {value.dtype.name} is not allowed there"
    return ""


# -- operators with another form in opset 18; each function returns why it cannot rewrite, or nothing ---------------


def _average_pool(node: ir.Node, model: ir.Model) -> str:
    if "dilations" in node.attributes:
        if any(d != 1 for d in node.attributes["dilations"].as_ints()):
            return "attribute 'dilations' does not exist there"
        del node.attributes["dilations"]
    return ""


def _cast(node: ir.Node, model: ir.Model) -> str:
    """Attributes saturate and round_mode matter for float8 types only, which opset 18 does not have."""
    for name in ("saturate", "round_mode"):
        node.attributes.pop(name, None)
    kind = ir.DataType(node.attributes["to"].as_int()).name
    allowed = onnx.defs.get_schema("Cast", NEWEST_OPSET, "").type_constraints[1].allowed_type_strs
    return "" if f"tensor({kind.lower()})" in allowed else f"type {kind} does not exist there"


def _cast_like(node: ir.Node, model: ir.Model) -> str:
    for name in ("saturate", "round_mode"):
        node.attributes.pop(name, None)
    return ""


def _dft(node: ir.Node, model: ir.Model) -> str:
    """The axis was an attribute with another default."""
    axis = node.inputs[2] if len(node.inputs) > 2 else None
    constants = ConstantEvaluator(NEWEST_OPSET)
    if axis is not None and not constants.is_constant(axis):
        return "its axis is an attribute there, and not constant here"
    number = -2 if axis is None else int(np.asarray(constants.array(axis)).reshape(-1)[0])
    if len(node.inputs) > 2:
        node.resize_inputs(2)
    node.attributes["axis"] = ir.AttrInt64("axis", number)
    return ""


def _grid_sample(node: ir.Node, model: ir.Model) -> str:
    """Older modes are named after two axes, the only ones at that time."""
    grid = node.inputs[1]
    if grid is None or grid.shape is None or len(grid.shape) != 4:
        return "only inputs of four axes are allowed there, and the model does not tell"
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "linear"
    node.attributes["mode"] = ir.AttrString("mode", {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode))
    return ""


def _group_normalization(node: ir.Node, model: ir.Model) -> str:
    return "its scale and bias belong to groups there, to channels here"


def _mod(node: ir.Node, model: ir.Model) -> str:
    value = node.inputs[0]
    if "fmod" in node.attributes and node.attributes["fmod"].as_int():
        return ""
    if value is None or value.dtype is None or value.dtype.is_floating_point():
        return "fmod = 0 is for integers there"
    return ""


def _pad(node: ir.Node, model: ir.Model) -> str:
    wrap = "mode" in node.attributes and node.attributes["mode"].as_string() == "wrap"
    return "mode 'wrap' does not exist there" if wrap else ""


def _resize(node: ir.Node, model: ir.Model) -> str:
    name = "coordinate_transformation_mode"
    symmetric = name in node.attributes and node.attributes[name].as_string() == "half_pixel_symmetric"
    return f"{name} 'half_pixel_symmetric' does not exist there" if symmetric else ""


def _space_to_depth(node: ir.Node, model: ir.Model) -> str:
    if "mode" in node.attributes and node.attributes["mode"].as_string() == "DCR":
        del node.attributes["mode"]
    return ""


REWRITES: dict[str, Callable[[ir.Node, ir.Model], str]] = {
    "AveragePool": _average_pool,
    "Cast": _cast,
    "CastLike": _cast_like,
    "DFT": _dft,
    "GridSample": _grid_sample,
    "GroupNormalization": _group_normalization,
    "Mod": _mod,
    "Pad": _pad,
    "Resize": _resize,
    "SpaceToDepth": _space_to_depth,
}
