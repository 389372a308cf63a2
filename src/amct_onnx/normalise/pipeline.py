"""The rules that turn every exporter's dialect into one form, in order."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from amct_onnx.normalise.activation_products import write_activation_products_as_matmul
from amct_onnx.normalise.constant_splits import slice_split_constants
from amct_onnx.normalise.container import normalise_container
from amct_onnx.normalise.conv_attributes import spell_out_convolutions
from amct_onnx.normalise.converted_models import refuse_converted_model
from amct_onnx.normalise.declared_shapes import recheck_declared_shapes
from amct_onnx.normalise.depthwise_activations import scale_depthwise_activations
from amct_onnx.normalise.division_precision import tell_other_divisions
from amct_onnx.normalise.dynamic_quantization import expand_dynamic_quantization
from amct_onnx.normalise.float16_casts import drop_casts_around_quantizers
from amct_onnx.normalise.float_integers import compute_integers_in_float
from amct_onnx.normalise.foreign_quantizers.rewrite import express_foreign_quantizers
from amct_onnx.normalise.foreign_quantizers.written_out import read_written_out_quantizers
from amct_onnx.normalise.fused_operators import expand_fused_operators
from amct_onnx.normalise.identities import drop_identities
from amct_onnx.normalise.inference_mode import drop_inference_dropout
from amct_onnx.normalise.integer_inputs import quantize_integer_inputs
from amct_onnx.normalise.integer_moves import move_quantizers_behind_integer_moves
from amct_onnx.normalise.missing_shapes import infer_missing_shapes
from amct_onnx.normalise.moves_before_factors import move_elements_before_factors
from amct_onnx.normalise.products import write_products_as_matmul
from amct_onnx.normalise.qoperator import expand_qoperators
from amct_onnx.normalise.small_types import refuse_small_types

RULES: tuple[Callable[[ir.Model], None], ...] = (
    # in front of all that write quantizers anew, without the attribute
    tell_other_divisions,
    # it may stand inside any of the patterns that the others know
    drop_inference_dropout,
    # in front of the next, which writes what no Q/DQ expresses as the same operators
    read_written_out_quantizers,
    express_foreign_quantizers,
    expand_fused_operators,
    expand_qoperators,
    expand_dynamic_quantization,
    slice_split_constants,
    recheck_declared_shapes,
    # onnx's inference stops at Q and DQ on float16, which the rules behind it leave
    infer_missing_shapes,
    # behind the rules that read the dialects, which know their Identity and Cast nodes
    drop_identities,
    write_products_as_matmul,
    write_activation_products_as_matmul,
    spell_out_convolutions,
    drop_casts_around_quantizers,
    scale_depthwise_activations,
    move_quantizers_behind_integer_moves,
    # what the rule before it has left of integers, which the next leads back to layers
    compute_integers_in_float,
    # integers that no rule before it led back to a QuantizeLinear
    quantize_integer_inputs,
    # behind all that write pairs
    move_elements_before_factors,
    # what the rules before it have left
    refuse_small_types,
)
"""Each rewrites the graph in place and leaves float tensor -> QuantizeLinear -> DequantizeLinear behind."""


def normalise(model: ir.Model) -> ir.Model:
    """Return the model in canonical form: opset 11..18, named and sorted nodes, plain Q/DQ pairs.

    Raises:
        NoQuantizerError: It is an output of a conversion, or quantized dynamically only.
        UnsupportedModelError: See the rules.
    """
    refuse_converted_model(model)
    model = normalise_container(model)
    for rule in RULES:
        rule(model)
    return model
