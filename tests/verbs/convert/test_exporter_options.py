"""What is typed in the exporter as the report says saves on the device what the report says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import amct_onnx
from amct_onnx.verbs.convert.cost import Cost
from support.golden_models import MODELS

pytestmark = pytest.mark.usefixtures("one_process")
NO_OPTION = "quantize_static has no option that lets another reader past the quantizer of an int8 layer."


def converted(path: Path) -> Cost:
    found = amct_onnx.convert_qat_model(path, path.parent / "out" / "m").cost
    assert found is not None
    return found


def of_model(name: str, folder: Path) -> str:
    model = onnx.load(MODELS / name / "model.onnx")
    onnx.save(model, folder / "m.onnx")
    return converted(folder / "m.onnx").exporter


def test_options_name_the_operators_of_the_model(tmp_path: Path) -> None:
    """In QOperator form too, whose operators have other names than those that are quantized."""
    for name in ("ort_digitsnet_qdq_i8_pc_sym", "ort_digitsnet_qop_u8"):
        assert of_model(name, tmp_path) == (
            "If onnxruntime's quantize_static or onnx-neural-compressor made this model: "
            "op_types_to_quantize=['Conv', 'Gemm'] with extra_options="
            "{'OpTypesToExcludeOutputQuantization': ['Conv', 'Gemm']} quantizes what these layers read and nothing "
            f"else: 3 AscendQuant and 3 AscendAntiQuant for 4,500 elements would go. {NO_OPTION}"
        )
    assert of_model("ort_digitsnet_qdq_a16", tmp_path) == (
        "If onnxruntime's quantize_static or onnx-neural-compressor made this model: activation_type=QuantType.QInt8 "
        "quantizes with 8 bits."
    )
    assert of_model("torchfx_mlp3d_i8sym_op13", tmp_path) == ""


def write_float(path: Path, network: Network) -> None:
    rng = np.random.default_rng(3)
    constants = {
        **{
            f"w{k}": rng.normal(size=shape).astype(np.float32) * np.float32(0.3)
            for k, shape in enumerate(network.weights)
        },
        **{"lo": np.float32(0), "hi": np.float32(6), "sizes": np.float32([1, 1, 2, 2])},
    }
    nodes = [helper.make_node(op, *rest, **attributes) for op, *rest, attributes in network.nodes]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 8, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Network(NamedTuple):
    """Shapes of the weights, and the nodes, each with its attributes."""

    weights: list[tuple[int, ...]]
    nodes: list[tuple[Any, ...]]


WEIGHTS = [(8, 8, 3, 3), (8, 8, 3, 3), (8, 8, 1, 1), (8, 16, 1, 1), (8, 4), (4,)]
PADDED = {"pads": [1, 1, 1, 1]}
NODES = [
    ("Conv", ["x", "w0"], ["a"], "conv0", PADDED),
    ("HardSigmoid", ["a"], ["b"], "hard_sigmoid", {}),
    ("Mul", ["a", "b"], ["c"], "hard_swish", {}),
    ("MaxPool", ["c"], ["d"], "pool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("Conv", ["d", "w1"], ["e"], "conv1", PADDED),
    ("Relu", ["e"], ["f"], "relu", {}),
    ("Resize", ["f", "", "sizes"], ["g"], "resize", {"mode": "nearest"}),
    ("GlobalAveragePool", ["c"], ["h"], "squeeze", {}),
    ("Conv", ["h", "w2"], ["i"], "conv2", {}),
    ("Sigmoid", ["i"], ["j"], "excite", {}),
    ("Mul", ["c", "j"], ["k"], "scale", {}),
    ("Add", ["k", "g"], ["l"], "residual", {}),
    ("Concat", ["l", "g"], ["m"], "concat", {"axis": 1}),
    ("Conv", ["m", "w3"], ["n"], "conv3", {}),
    ("Clip", ["n", "lo", "hi"], ["o"], "clip", {}),
    ("Transpose", ["o"], ["p"], "transpose", {"perm": [0, 2, 3, 1]}),
    ("MatMul", ["p", "w4"], ["q"], "matmul", {}),
    ("Add", ["q", "w5"], ["r"], "bias", {}),
    ("Softmax", ["r"], ["y"], "softmax", {"axis": -1}),
]
HALVED = PADDED | {"kernel_shape": [3, 3], "strides": [2, 2]}
EXCITED = Network(WEIGHTS, NODES)
"""Squeeze-and-excitation, a residual and hard-swish, with a Concat of two scales and a MatMul behind Transpose."""
JOINED = Network(
    [(8, 8, 1, 1), (8, 8, 3, 3), (8, 16, 3, 3)],
    [
        ("Conv", ["x", "w0"], ["a"], "conv0", {}),
        ("Relu", ["a"], ["b"], "relu0", {}),
        ("Conv", ["x", "w1"], ["c"], "conv1", PADDED),
        ("Relu", ["c"], ["d"], "relu1", {}),
        ("Concat", ["b", "d"], ["e"], "concat", {"axis": 1}),
        ("MaxPool", ["e"], ["f"], "pool", HALVED),
        ("Conv", ["e", "w2"], ["g"], "conv2", HALVED),
        ("HardSigmoid", ["g"], ["h"], "small", {}),
        ("Concat", ["f", "h"], ["i"], "last", {"axis": 1}),
        ("ReduceMean", ["i"], ["j"], "mean", {"axes": [2, 3], "keepdims": 0}),
        ("Softmax", ["j"], ["y"], "softmax", {"axis": -1}),
    ],
)
"""A pair behind a Concat is left out as one rounds alike behind the MaxPool; a layer needs its quantizer."""


def quantized(source: Path, target: Path, types: list[str] | None, kind: str) -> Cost:
    """The cost of what onnxruntime makes of a float model.

    Args:
        source: the float model.
        target: where to.
        types: operators that are quantized, and whose outputs are not; None for all, with their outputs.
        kind: of the activations.
    """
    from onnxruntime import quantization as tool

    class Feeds(tool.CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            rng = np.random.default_rng(5)
            self.left: Iterator[dict[str, np.ndarray]] = iter(
                [{"x": rng.normal(size=(1, 8, 8, 8)).astype(np.float32)} for _ in range(2)]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    tool.quantize_static(
        str(source),
        str(target),
        Feeds(),
        per_channel=True,
        activation_type=tool.QuantType[kind],
        op_types_to_quantize=types,
        extra_options={
            "ActivationSymmetric": kind == "QInt8",
            "OpTypesToExcludeOutputQuantization": types or [],
        },
    )
    return converted(target)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("network", [EXCITED, JOINED], ids=["excited", "joined"])
def test_gain_that_is_told_is_the_gain_that_is_had(network: Network, kind: str, tmp_path: Path) -> None:
    write_float(tmp_path / "float.onnx", network)
    before = quantized(tmp_path / "float.onnx", tmp_path / "q.onnx", None, kind)
    options = re.search(r"op_types_to_quantize=(\[.*?\]) ", before.exporter)
    told = re.search(r"else: (\d+) AscendQuant and (\d+) AscendAntiQuant for ([\d,]+) elements", before.exporter)
    assert options is not None and told is not None
    after = quantized(tmp_path / "float.onnx", tmp_path / "q.onnx", ast.literal_eval(options[1]), kind)
    assert (after.int8_layers, after.float_quant) == (before.int8_layers, before.float_quant)
    assert before.quant.nodes - after.quant.nodes == int(told[1]) > 3
    assert before.anti_quant.nodes - after.anti_quant.nodes == int(told[2])
    passed = [c.quant.elements + c.anti_quant.elements for c in (before, after)]
    assert passed[0] - passed[1] == int(told[3].replace(",", ""))
    assert not after.exporter or after.exporter == NO_OPTION
