"""The reason codes of layers that stay float: what each means and what to change; docs/reasons.md is made from them."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Reason = Literal[
    "activation-not-quantized",
    "activation-per-channel",
    "activation-blockwise",
    "activation-16-bit",
    "activation-scale-range",
    "activation-zero-point",
    "activation-offset",
    "activation-by-activation",
    "dynamic-quantization",
    "quantizer-not-integer",
    "float-type",
    "weight-not-quantized",
    "weight-not-constant",
    "weight-factors-differ",
    "weight-asymmetric",
    "weight-blockwise",
    "weight-type",
    "weight-axis",
    "weight-scale",
    "weight-scale-length",
    "matmul-weight-rank",
    "bias-not-constant",
    "bias-shape",
    "deq-scale-range",
    "gemm-alpha",
    "gemm-per-channel",
    "padding-unknown",
    "conv-rank",
    "conv-3d-dilation",
    "conv-transpose-3d",
    "recurrent-layer",
    "einsum",
    "foreign-operator",
]
"""Why a layer stays float."""
REASONS: tuple[Reason, ...] = get_args(Reason)


class Explanation(NamedTuple):
    """What a code means, and what to change in the exporter or the options; Markdown, whole sentences."""

    meaning: str
    change: str


GROUPS: dict[str, dict[Reason, Explanation]] = {
    "Its input": {
        "activation-not-quantized": Explanation(
            "The layer's input does not lie on the grid of an 8-bit quantizer: there is none in front of it, an "
            "operator between them leaves the grid, or what rounds there is not known as a quantizer.",
            "Quantize the tensor that the detail names, the layer's own input, with QuantizeLinear and "
            "DequantizeLinear of 8 bits and one scale.",
        ),
        "activation-per-channel": Explanation(
            "The input has one scale per channel. A layer sums over its input channels, so one integer sum cannot "
            "hold them.",
            "Quantize the activation per tensor. One scale per channel is converted only in front of a float32 "
            "depthwise convolution, with one zero point.",
        ),
        "activation-blockwise": Explanation(
            "The input has one scale per block of elements (`block_size`), AscendQuant has one per tensor.",
            "Quantize the activation per tensor.",
        ),
        "activation-16-bit": Explanation(
            "The input is quantized to 16 bits, the int8 layers take 8.",
            "Quantize the activation to int8 or uint8.",
        ),
        "activation-scale-range": Explanation(
            "The input's scale is so small (subnormal) that its reciprocal, which AscendQuant multiplies by, is "
            "infinite in float32.",
            "Calibrate the quantizer again, on data that reach the layer.",
        ),
        "activation-zero-point": Explanation(
            "The zero point lies outside the range of the integers, or the layer and the QuantizeLinear in front of "
            "it have different ones.",
            "Train or calibrate with a range that includes zero, and export one zero point for both.",
        ),
        "activation-offset": Explanation(
            "The layer multiplies two activations, and a quantizer of one is not symmetric; the product would need "
            "sums of both inputs while it runs.",
            "Make both quantizers symmetric: int8 with zero point 0, or uint8 with 128.",
        ),
        "activation-by-activation": Explanation(
            "The layer multiplies two activations, and is a Gemm whose alpha or beta is not 1, the product of two "
            "vectors (or of tensors that may be vectors, as their rank is unknown) or a sum of no terms, or the option "
            "asks to leave it float.",
            "Write the Gemm as a MatMul with an Add behind it; give a vector a second axis; declare the shapes of the "
            "graph's inputs; convert with `--act_matmul on`, the default.",
        ),
        "dynamic-quantization": Explanation(
            "The input's scale is computed from each input while the model runs (DynamicQuantizeLinear and the like); "
            "AscendQuant's is a constant.",
            "Quantize with static scales: onnxruntime's `quantize_static` in place of `quantize_dynamic`, or training.",
        ),
        "quantizer-not-integer": Explanation(
            "The quantizer in front of the layer makes no 8-bit integers by rounding half to even: it makes float8, "
            "has another number of bits, another way of rounding, or a zero point that is no integer.",
            "Quantize the activation to int8 or uint8 with rounding half to even and an integer zero point.",
        ),
        "float-type": Explanation(
            "The input is of another float type than float32 and float16: bfloat16, say.",
            "Export the model in float32 or float16.",
        ),
    },
    "Its weight": {
        "weight-not-quantized": Explanation(
            "The weight has no quantizer, and its floats do not lie on an int8 grid (or `--grid_weights off` forbids "
            "to look for one).",
            "Add a weight quantizer to the layer and train or calibrate; for floats on a grid convert with "
            "`--grid_weights on`, the default.",
        ),
        "weight-not-constant": Explanation(
            "The weight is computed while the model runs, is cut out of another constant in a way that is not "
            "followed, or is the first input of a product that is not written anew with the weight second: its "
            "operands are not both quantized (the activation per tensor, the weight per tensor or per row), the rank "
            "of the second is unknown or 1, or a Gemm's alpha or beta is not 1.",
            "Store it as a constant of its own, and as the second input of MatMul or Gemm; export with constant "
            "folding.",
        ),
        "weight-factors-differ": Explanation(
            "QuantizeLinear and DequantizeLinear of the weight have different scales, zero points or axes: its "
            "integers stand for other numbers than those trained.",
            "Export the model again so that both share one scale and one zero point; a tool that edited one of them "
            "must edit both.",
        ),
        "weight-asymmetric": Explanation(
            "The weight has a zero point, and without it its integers do not fit int8; Ascend has no zero point of "
            "weights (`offset_w` is 0).",
            "Train or calibrate with symmetric weights (in onnxruntime `WeightSymmetric=True`, the default for int8). "
            "Where the detail's remedy offers it, convert with `--asymmetric_weights sum`.",
        ),
        "weight-blockwise": Explanation(
            "The weight has one scale per block of elements (`block_size`).",
            "Quantize the weight per tensor or per output channel.",
        ),
        "weight-type": Explanation(
            "The weight is stored in another type than integers of at most 8 bits: 16 bits or float8, say.",
            "Quantize the weight to int8.",
        ),
        "weight-axis": Explanation(
            "The weight's scales belong to another axis than its output channels, or a Reshape mixes the channels "
            "that they belong to.",
            "Quantize along the output channels: axis 0 of Conv and of a Gemm with transB = 1, axis 1 of "
            "ConvTranspose, the last axis of MatMul.",
        ),
        "weight-scale": Explanation(
            "A scale of the weight is infinite or not a number, or negative although its channel is not all 0.",
            "Calibrate or train the quantizer again.",
        ),
        "weight-scale-length": Explanation(
            "The number of the weight's scales is neither 1 nor that of the output channels.",
            "Export the model again; the scales and the weight come from different versions of the layer.",
        ),
        "matmul-weight-rank": Explanation(
            "The constant weight of a MatMul does not have two axes; ATC compiles an int8 constant only as a matrix.",
            "Use a 2-D weight or one MatMul for each matrix, or leave the layer out of those that the exporter "
            "quantizes.",
        ),
    },
    "Its bias and factors": {
        "bias-not-constant": Explanation(
            "The bias is computed while the model runs.",
            "Store the bias as a constant, or add it in an Add of its own.",
        ),
        "bias-shape": Explanation(
            "The bias is neither one number nor one per output channel along the last axis.",
            "Give it the shape [output channels].",
        ),
        "deq-scale-range": Explanation(
            "The product of the activation's and the weight's scale is 0 or infinite in float32.",
            "Calibrate the quantizers again.",
        ),
        "gemm-alpha": Explanation(
            "The Gemm's alpha is 0 or not finite, or negative while a weight is -128, whose opposite int8 cannot hold.",
            "Export with alpha = 1; `torch.nn.Linear` does.",
        ),
        "gemm-per-channel": Explanation(
            "A Gemm or MatMul has one scale per output channel, and `--gemm_per_channel refuse` was given.",
            "Convert with `--gemm_per_channel mul`, the default, or `vector`; or quantize the weight per tensor.",
        ),
    },
    "The layer itself": {
        "padding-unknown": Explanation(
            "Its padding (`auto_pad`, `output_shape`) depends on the size of its input, and the model does not declare "
            "that.",
            "Export with explicit pads, or with fixed height and width.",
        ),
        "conv-rank": Explanation(
            "It has more than three spatial axes.",
            "Nothing makes it int8 on Ascend. Leave it out of those that the exporter quantizes.",
        ),
        "conv-3d-dilation": Explanation(
            "It is a 3-D Conv that is dilated in depth; the int8 one takes dilation 1 there.",
            "Train it with dilation 1 in depth, or leave it out of those that the exporter quantizes.",
        ),
        "conv-transpose-3d": Explanation(
            "It is a ConvTranspose with three spatial axes.",
            "Nothing makes it int8 on Ascend. Leave it out of those that the exporter quantizes.",
        ),
        "recurrent-layer": Explanation(
            "It is an LSTM, GRU or RNN, and reads quantized numbers.",
            "Nothing makes it int8 on Ascend. Leave it out of those that the exporter quantizes.",
        ),
        "einsum": Explanation(
            "It is an Einsum that is neither the product of an activation and a constant matrix, nor a MatMul of two "
            "activations with symmetric quantizers; or the axes that it sums are not known to be equally long in both.",
            "Export it with fixed sizes, write it as MatMul with Transpose or Reshape around it, or leave it out of "
            "those that the exporter quantizes.",
        ),
        "foreign-operator": Explanation(
            "It is an operator outside of ONNX that reads quantized numbers and stays as it is: unknown, or in a form "
            "whose definition no standard operators compute ([dialects](dialects.md)).",
            "Export in QDQ format with standard operators, or leave it out of those that the exporter quantizes. ATC "
            "must know the operator too.",
        ),
    },
}
"""Heading -> the codes under it."""
