"""Dumps as users have them, of a real model: each is found, put into the model's layout and compared, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amct_onnx import DataError, DeploySession
from amct_onnx.device.session import LayerTensors
from amct_onnx.verbs.compare.explain.board import compare_board
from amct_onnx.verbs.compare.report import BoardResult
from support.comparison_cases import DIGITS, converted
from support.device_dumps import Tensor, channel_blocks, matrix_blocks, write_dump

DEVICE = "a2"


@dataclass(frozen=True)
class Simulated:
    """A deploy model with two feeds and what the device computes of them."""

    model: Path
    feeds: list[dict[str, Any]]
    outputs: list[list[Any]]
    layers: list[tuple[LayerTensors, ...]]

    def board(self, folder: str | Path) -> BoardResult:
        return compare_board(folder, self.model, DEVICE, {}, iter(self.feeds), lambda: False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    case = converted(DIGITS, tmp_path_factory.mktemp("digits"), samples=4)
    with np.load(case.data) as archive:
        (name,) = archive.files
        feeds = [{name: archive[name][2 * i : 2 * i + 2]} for i in range(2)]
    with DeploySession(case.deploy, device=DEVICE, collect="layers") as session:
        runs = [session.run_layers(f) for f in feeds]
    return Simulated(case.deploy, feeds, [r[0] for r in runs], [r[1] for r in runs])


def spelt(name: str) -> str:
    return name.replace("/", "_").replace(".", "_")


def device_tensor(x: Any, original: str = "") -> Tensor:
    """In the layout that a device would use."""
    origin = (original, 0) if original else None
    if x.ndim == 4:
        return Tensor(channel_blocks(x, 32 if x.dtype == np.int8 else 16), "NC1HWC0", x.shape, origin)
    return Tensor(matrix_blocks(x), "FRACTAL_NZ", x.shape, origin) if x.ndim == 2 else Tensor(x, "ND", x.shape, origin)


Write = Callable[[Path, LayerTensors], None]


def raw_by_name(folder: Path, t: LayerTensors) -> None:
    """One operator for a Conv, a small graph for a Gemm: the sum with the bias is an Add of its own."""
    product = device_tensor(t.accumulator - 5)
    if t.op_type == "Gemm":
        name = f"PartitionedCall_{spelt(t.name)}"
        write_dump(folder / f"MatMulV2.{name}_MatMulV2_3.5.1.1700000000000000", [device_tensor(t.input)], [product])
        summed = device_tensor(t.accumulator)
        write_dump(folder / f"Add.{name}_add_4.6.1.1700000000000001", [product], [summed])
    else:
        file = folder / f"Conv2D.{spelt(t.name)}.5.1.1700000000000000"
        write_dump(file, [device_tensor(t.input)], [device_tensor(t.accumulator)])
    dequantized = device_tensor(t.output.astype(np.float16))
    write_dump(folder / f"AscendDequant.{spelt(t.dequantizer)}.7.1.1700000000000002", [], [dequantized])


def raw_by_origin(folder: Path, t: LayerTensors) -> None:
    """Fused operators under names of their own; the origin attribute tells whose output it is."""
    quantized = device_tensor(t.input, t.producer)
    write_dump(folder / f"AscendQuant.fused_{len(list(folder.parent.rglob('*')))}.1.1.17", [], [quantized])
    number = len(list(folder.parent.rglob("*")))
    outputs = [device_tensor(t.accumulator, t.name), device_tensor(t.output.astype(np.float16), t.dequantizer)]
    write_dump(folder / f"Fused.te_fused_op_{number}.2.1.1.17", [], outputs)


@pytest.mark.parametrize("write", [raw_by_name, raw_by_origin])
def test_raw_dumps_of_the_runtime(digits: Simulated, write: Write) -> None:
    """In the folders that it makes: time, device, model, its number, number of the run."""
    for number, (layers, outputs) in enumerate(zip(digits.layers, digits.outputs, strict=True)):
        folder = Path("dumps/20260101120000/0/model/1") / str(number)
        folder.mkdir(parents=True)
        for t in layers:
            write(folder, t)
        write_dump(folder / "NetOutput.Node_Output.9.1.1700000000000003", [Tensor(o) for o in outputs])
    found = digits.board("dumps")
    assert found.feeds == 2 and not found.missing and not found.not_judged
    kinds = ("input", "accumulator", "output", "graph output")
    assert {t.tensor for t in found.tensors} == set(kinds)
    assert len(found.tensors) == 3 * len(digits.layers[0]) + len(digits.outputs[0])
    assert all(t.difference.exact and t.feeds == 2 for t in found.tensors)


def test_one_wrong_number_in_a_block_is_found(digits: Simulated) -> None:
    t = digits.layers[0][1]
    for wrong in (0, 1):
        summed = t.accumulator.copy()
        summed[1, -1, -1, -1] += wrong
        write_dump(Path(f"{wrong}/Conv2D.{spelt(t.name)}.5.1.17"), [device_tensor(t.input)], [device_tensor(summed)])
        found = digits.board(str(wrong))
        assert found.fault == bool(wrong)
    assert (found.layer, found.tensor) == (t.name, "accumulator")
    assert next(x.difference.max_abs for x in found.tensors if x.tensor == "accumulator") == 1


def test_files_that_msprobe_converts(digits: Simulated) -> None:
    """.npy in the device's shape, .bin with shape, type and format in the name, and a long name in the mapping."""
    folder = Path("converted")
    folder.mkdir()
    first, second, third = digits.layers[0][:3]
    np.save(folder / f"Conv2D.{spelt(first.name)}.5.1.1700.input.0.npy", channel_blocks(first.input, 32))
    np.save(folder / f"Conv2D.{spelt(first.name)}.5.1.1700.output.0.npy", channel_blocks(first.accumulator))
    blocks = channel_blocks(second.accumulator)
    shape = "_".join(map(str, blocks.shape))
    blocks.tofile(folder / f"Conv2D.{spelt(second.name)}.5.1.1700.output.0.{shape}.int32.NC1HWC0.bin")
    nhwc = third.output.astype(np.float16)
    nhwc = nhwc.transpose(0, 2, 3, 1) if nhwc.ndim == 4 else nhwc
    np.save(folder / "0123456789.npy", nhwc)
    name = f"AscendDequant.{spelt(third.dequantizer)}.5.1.1700.output.0.{'NHWC' if nhwc.ndim == 4 else 'ND'}.npy"
    (folder / "mapping.csv").write_text(f"0123456789.npy,{name}\n", encoding="utf-8")
    found = digits.board("converted")
    judged = {(t.layer, t.tensor) for t in found.tensors if t.difference.exact}
    assert judged == {
        (first.name, "input"),
        (first.name, "accumulator"),
        (second.name, "accumulator"),
        (third.name, "output"),
    }
    assert not found.not_judged


def test_golden_names_are_read(digits: Simulated) -> None:
    Path("golden").mkdir()
    t = digits.layers[0][0]
    for name, array in ((t.producer, t.input), (t.name, t.accumulator), (t.dequantizer, t.output)):
        np.save(f"golden/{spelt(name)}.0.1700000000000000.npy", array)
    found = digits.board("golden")
    assert [(x.tensor, x.difference.exact) for x in found.tensors] == [
        ("input", True),
        ("accumulator", True),
        ("output", True),
    ]


@pytest.mark.parametrize("suffix", ["npy", "bin"])
@pytest.mark.parametrize("stems", [("000000", "000001"), ("img_a", "img_b")])
def test_outputs_of_ais_bench(digits: Simulated, suffix: str, stems: tuple[str, str]) -> None:
    """Of many inputs in one folder of its time, with a summary beside it."""
    folder = Path("bench/2026_01_01-12_00_00")
    folder.mkdir(parents=True)
    Path("bench/2026_01_01-12_00_00_summary.json").write_text("{}")
    for stem, outputs in zip(stems, digits.outputs, strict=True):
        for index, output in enumerate(outputs):
            if suffix == "npy":
                np.save(folder / f"{stem}_{index}.npy", output)
            else:
                output.tofile(folder / f"{stem}_{index}.bin")
    found = digits.board("bench")
    assert found.feeds == 2 and {t.tensor for t in found.tensors} == {"graph output"}
    assert all(t.difference.exact and t.feeds == 2 for t in found.tensors)
    assert set(found.missing) == {t.name for t in digits.layers[0]}


def test_layer_that_the_device_dequantizes_itself(digits: Simulated) -> None:
    t = digits.layers[0][0]
    write_dump(Path(f"d/Conv2D.{spelt(t.name)}.5.1.17"), [], [device_tensor(t.output.astype(np.float16))])
    found = digits.board("d")
    assert [(x.tensor, x.difference.exact) for x in found.tensors] == [("output", True)] and not found.not_judged


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (lambda t: Tensor(t.accumulator, "FRACTAL_Z", t.accumulator.shape), "FRACTAL_Z does not tell"),
        (lambda t: Tensor(channel_blocks(t.accumulator).reshape(-1), "NC1HWC0"), "NC1HWC0 does not tell"),
        (lambda t: device_tensor(t.input), "the board has int8 there, not int32"),
    ],
)
def test_what_cannot_be_judged_is_said(digits: Simulated, tensor: Callable[[LayerTensors], Tensor], words: str) -> None:
    t = digits.layers[0][1]
    file = f"Conv2D.{spelt(t.name)}.5.1.17"
    write_dump(Path("d", file), [], [tensor(t)])
    found = digits.board("d")
    assert not found.tensors and not found.fault
    (reason,) = found.not_judged  # one file, one sentence
    assert reason.startswith(f"Accumulator of '{t.name}'")
    assert words in reason and file in reason
    assert "no dumped tensor could be judged" in found.text and reason.split(":")[0] in found.text


def test_dump_of_one_thread_is_a_part(digits: Simulated) -> None:
    t = digits.layers[0][1]
    write_dump(Path("d", f"Conv2D.{spelt(t.name)}.5.1.17.0.3.255"), [], [Tensor(t.accumulator[:1], "NCHW")])
    (reason,) = digits.board("d").not_judged
    assert "each thread" in reason


def test_product_without_its_bias_is_no_fault(digits: Simulated) -> None:
    t = next(t for t in digits.layers[0] if t.op_type == "Gemm")
    name = f"MatMulV2.PartitionedCall_{spelt(t.name)}_MatMulV2_3.5.1.17"
    write_dump(Path("d", name), [device_tensor(t.input)], [device_tensor(t.accumulator - 5)])
    found = digits.board("d")
    assert [x.tensor for x in found.tensors] == ["input"] and not found.fault
    assert "without the bias" in found.not_judged[0]
    write_dump(Path("e", name), [device_tensor(t.input)], [device_tensor(t.accumulator)])  # the bias was fused
    assert [x.tensor for x in digits.board("e").tensors] == ["input", "accumulator"]


def test_dumps_that_cannot_be_read(digits: Simulated) -> None:
    t = digits.layers[0][0]
    Path("d").mkdir()
    Path("d", f"Conv2D.{spelt(t.name)}.5.1.17").write_bytes(b"none")
    with pytest.raises(DataError, match="claims a header"):
        digits.board("d")
    Path("d", f"Conv2D.{spelt(t.name)}.5.1.17").rename(Path("d", "Opdebug.Node_OpDebug.5.1.17"))
    with pytest.raises(DataError, match="holds no dump of a layer"):  # a file of another operator says nothing
        digits.board("d")
    write_dump(Path("e", f"Conv2D.{spelt(t.name)}.5.1.17"), [], [Tensor(np.zeros(3, np.int32))])
    with pytest.raises(DataError, match="is not the accumulator of shape"):
        digits.board("e")
    Path("f").mkdir()
    Path("f/mapping.csv").write_bytes(b"\xff\xfe,x\n")
    with pytest.raises(DataError, match=r"mapping.csv"):
        digits.board("f")
