"""Print how the time of `check` grows when a model of int8 layers doubles, and its share of reading the file."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import amct_onnx
from amct_onnx.verbs.check.load import load_for_check

ROUNDS = 5


def chain(layers: int) -> onnx.ModelProto:
    """AscendQuant -> Conv -> AscendDequant -> Relu, layers times, weights of 32 x 32 x 3 x 3."""
    weight = np.ones((32, 32, 3, 3), np.int8)
    param = np.full(32, 2.0**-10, np.float32).view(np.uint32).astype(np.uint64)
    nodes, constants, source = [], [], "x"
    for i in range(layers):
        attributes = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4, "dilations": [1, 1], "group": 1}
        nodes += [
            helper.make_node("AscendQuant", [source], [f"q{i}"], f"q{i}", scale=8.0, offset=0.0, dst_type="INT8"),
            helper.make_node("Conv", [f"q{i}", f"w{i}"], [f"a{i}"], f"conv{i}", **attributes),
            helper.make_node("AscendDequant", [f"a{i}", f"p{i}"], [f"d{i}"], f"d{i}", dtype=0),
            helper.make_node("Relu", [f"d{i}"], [f"r{i}"], f"relu{i}"),
        ]
        constants += [numpy_helper.from_array(weight, f"w{i}"), numpy_helper.from_array(param, f"p{i}")]
        source = f"r{i}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 8, 8])],
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, [1, 32, 8, 8])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def seconds(path: Path) -> tuple[float, float]:
    """Fastest of several rounds: reading the file, and checking the model in memory."""
    read, checked = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        model, _ = load_for_check(path)
        middle = time.perf_counter()
        assert amct_onnx.check(model).passed
        read.append(middle - start)
        checked.append(time.perf_counter() - middle)
    return min(read), min(checked)


def main() -> None:
    """Three sizes, each twice the one before."""
    with tempfile.TemporaryDirectory() as folder:
        before = 0.0
        for layers in (500, 1000, 2000):
            path = Path(folder) / "m.onnx"
            onnx.save(chain(layers), path)
            read, checked = seconds(path)
            growth = f", {checked / before:.2f} times the half" if before else ""
            share = f"{checked / read:.2f} times the reading of the file"
            print(f"{4 * layers} nodes: check {checked * 1e3:.0f} ms, {share}{growth}")
            before = checked


if __name__ == "__main__":
    main()
