"""What is counted and dumped while real models run, against numbers taken in numpy from the independent evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_onnx import convert_qat_model
from amct_onnx.verbs.simulate.dump_names import file_name
from amct_onnx.verbs.simulate.simulate import simulate
from support.deploy_evaluator import Array, Evaluator, attributes
from support.golden_models import MODELS

NAMES = ("torchfx_miscA_i8sym_op13", "inc_resnet_qdq_i8", "ort_mbv3_qdq_dedicated")


@dataclass
class Counted:
    """Of one layer: elements quantized, left [-128, 127], exactly between two integers; largest |accumulator|."""

    values: int = 0
    saturated: int = 0
    ties: int = 0
    largest: int = 0


class Counting(Evaluator):
    """The independent evaluator, which keeps what each AscendQuant did to its values."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.quantized: dict[str, tuple[int, int, int]] = {}
        self.makers = {o: n for n in self.model.graph.node for o in n.output}

    def quant(self, node: onnx.NodeProto, x: Array) -> None:
        """Counts, from the definition."""
        super().quant(node, x)
        factors = attributes(node)
        product = x.astype(np.float32) * np.float32(factors["scale"])
        rounded = np.rint(product) + np.float32(factors["offset"])
        saturated = np.count_nonzero((rounded < -128) | (rounded > 127))
        ties = np.count_nonzero(np.abs(product - np.rint(product)) == 0.5)
        self.quantized[node.output[0]] = (x.size, saturated, ties)

    def quantizer_of(self, node: onnx.NodeProto) -> tuple[int, int, int]:
        """Counts of the AscendQuant whose values a layer reads."""
        name = node.input[0]
        while name not in self.quantized:
            name = self.makers[name].input[0]
        return self.quantized[name]


@pytest.mark.parametrize("name", NAMES)
def test_counts_and_dumps_of_converted_models(name: str, tmp_path: Path) -> None:
    report = convert_qat_model(MODELS / name / "model.onnx", tmp_path / "m")
    with np.load(MODELS / name / "inputs.npz") as archive:
        ((source, array),) = archive.items()
    # the second feed leaves the range that the quantizers were trained for
    both = [array, array * np.float32(3)]
    np.save(tmp_path / "data.npy", np.concatenate(both))
    shape = ",".join(map(str, array.shape))
    result = simulate(
        report.deploy_model, tmp_path / "data.npy", tmp_path / "out", input_shape=f"{source}:{shape}", dump_layers=True
    )
    assert result.feeds == 2 and len(result.layers) == len(report.converted)
    counted = {f.name: Counted() for f in result.layers}
    for index, feed in enumerate(both):
        evaluator = Counting(report.deploy_model)
        evaluator.run({source: feed})
        nodes = {n.name: n for n in evaluator.model.graph.node}
        for fact in result.layers:
            layer, behind = nodes[fact.name], nodes[fact.dequantizer]
            accumulator = evaluator.values[behind.input[0]]
            of = counted[fact.name]
            values, saturated, ties = evaluator.quantizer_of(layer)
            of.values, of.saturated, of.ties = of.values + values, of.saturated + saturated, of.ties + ties
            of.largest = max(of.largest, int(np.abs(accumulator.astype(np.int64)).max()))
            for file, expected in (
                (f"{layer.op_type}.{file_name(fact.name)}.input.0.npy", evaluator.values[layer.input[0]]),
                (f"{layer.op_type}.{file_name(fact.name)}.output.0.npy", accumulator),
                (f"AscendDequant.{file_name(fact.dequantizer)}.output.0.npy", evaluator.values[behind.output[0]]),
            ):
                dumped = np.load(tmp_path / "out" / f"{index:06d}" / file)
                assert dumped.dtype == expected.dtype and dumped.shape == expected.shape, file
                assert dumped.tobytes() == expected.tobytes(), file
    assert {c.name: Counted(c.values, c.saturated, c.ties, c.largest_accumulator) for c in result.counts} == counted
    assert any(c.saturated for c in counted.values())
