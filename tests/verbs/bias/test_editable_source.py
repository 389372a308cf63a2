"""What the bias verb does with files: external data, the input as output, models above 2 GB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import amct_onnx
from amct_onnx.errors import OutputError
from support.bias_cases import BIAS, RNG, layer, multiple, start
from support.golden_models import MODELS
from support.qdq_builder import QdqBuilder


def test_external_data_stays_external_and_complete(tmp_path: Path) -> None:
    source = MODELS / "ort_digitsnet_qdq_extdata" / "model.onnx"
    amct_onnx.quantize_bias(source, tmp_path / "adapted.onnx")

    def external(path: Path) -> set[str]:
        graph = onnx.load(str(path), load_external_data=False).graph
        return {t.name for t in graph.initializer if t.data_location == TensorProto.EXTERNAL}

    assert external(source) - external(tmp_path / "adapted.onnx") <= {
        e.tensor for e in amct_onnx.quantize_bias(source, tmp_path / "again.onnx").layers
    }
    assert external(tmp_path / "adapted.onnx")
    assert (tmp_path / "adapted.onnx.data").exists()


@pytest.mark.parametrize("link", [False, True])
def test_output_on_the_input_is_refused(link: bool, tmp_path: Path) -> None:
    b, x = start()
    b.output(layer(b, x, scale_w=0.02, bias=b.constant(BIAS)))
    onnx.save(b.model(), str(tmp_path / "source.onnx"))
    content = (tmp_path / "source.onnx").read_bytes()
    target = tmp_path / "source.onnx"
    if link:
        target = tmp_path / "other.onnx"
        target.hardlink_to(tmp_path / "source.onnx")
    with pytest.raises(OutputError, match="is an input itself"):
        amct_onnx.quantize_bias(tmp_path / "source.onnx", target)
    assert (tmp_path / "source.onnx").read_bytes() == content


PEAK = """
import sys, amct_onnx
report = amct_onnx.quantize_bias(sys.argv[1], sys.argv[2])
assert [e.action for e in report.layers] == ["rounded"] * 4, report
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
BLOCKS = 500_000
"""KiB: an interpreter with its libraries (about 100 MB), blocks of weights, some arrays per output channel."""


@pytest.mark.slow
def test_more_than_two_gigabytes_in_bounded_memory(tmp_path: Path) -> None:
    """The weights of four layers, each of 600 MB, are a hole in a sparse file; the rest is real."""
    b = QdqBuilder(13)
    sizes = [12_000, 50_000, 12_000, 50_000, 12_000]
    x, total, biases = b.input("x", [1, sizes[0]]), 0, {}
    for index, (rows, columns) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weight = TensorProto(name=f"w{index}", data_type=TensorProto.INT8, dims=[rows, columns])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", total), ("length", rows * columns)):
            weight.external_data.add(key=key, value=str(value))
        total += rows * columns
        b.initializers.append(weight)
        factors = [b.constant(np.full(columns, 0.02, np.float32)), b.constant(np.zeros(columns, np.int8))]
        float_weight = b.node("DequantizeLinear", [f"w{index}", *factors], axis=1)
        y = b.node("MatMul", [b.activation(x, 0.031, np.int8(3)), float_weight], name=f"mm{index}")
        biases[f"bias{index}"] = RNG.normal(size=columns).astype(np.float32)
        x = b.node("Add", [y, b.constant(biases[f"bias{index}"], f"bias{index}")])
    with open(tmp_path / "w.bin", "wb") as file:
        file.truncate(total)
    b.output(x)
    onnx.save(b.model(), str(tmp_path / "source.onnx"))
    target = tmp_path / "out" / "adapted.onnx"
    command = [sys.executable, "-c", PEAK, str(tmp_path / "source.onnx"), str(target)]
    assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < BLOCKS
    padding = 4 * 2**16  # tensors begin on a page
    assert 2**31 < total <= (target.parent / "adapted.onnx.data").stat().st_size <= total + padding
    held = {t.name: t for t in onnx.load(str(target), load_external_data=False).graph.initializer}
    for name, bias in biases.items():
        np.testing.assert_array_equal(numpy_helper.to_array(held[name]), multiple(bias, 0.031, 0.02))
