"""One pass over the weights: what is read, computed and written is counted, and both forms of fake-quant run."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import amct_onnx
from amct_onnx.errors import SettingError, UnsupportedModelError
from amct_onnx.files import compose, file_tensor, write
from support.deploy_evaluator import evaluate
from support.golden_models import MODEL_CASES, MODELS

SIDE, LAYERS = 256, 3


def matmuls(folder: Path, *, external: bool = False, nan: bool = False, side: int = SIDE, layers: int = LAYERS) -> Path:
    """MatMuls with float weights behind Q/DQ, one of them behind a Transpose, and a float MatMul without quantizers."""
    rng = np.random.default_rng(0)
    nodes, constants, source = [], {}, "x"
    for i in range(layers):
        constants |= {
            f"w{i}": rng.normal(size=(side, side)).astype(np.float32),
            f"sw{i}": rng.uniform(0.01, 0.03, side).astype(np.float32),
            f"b{i}": rng.normal(size=side).astype(np.float32),
            f"s{i}": np.float32(0.1),
            f"z{i}": np.int8(3),
        }
        turned = i == layers - 1
        factors = [f"s{i}", f"z{i}"]
        nodes += [
            helper.make_node("QuantizeLinear", [source, *factors], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", *factors], [f"d{i}"]),
            helper.make_node("QuantizeLinear", [f"w{i}", f"sw{i}", "zw"], [f"wq{i}"], axis=0 if turned else 1),
            helper.make_node("DequantizeLinear", [f"wq{i}", f"sw{i}", "zw"], [f"wd{i}"], axis=0 if turned else 1),
            *([helper.make_node("Transpose", [f"wd{i}"], [f"wt{i}"], perm=[1, 0])] if turned else []),
            helper.make_node("MatMul", [f"d{i}", f"w{'t' if turned else 'd'}{i}"], [f"m{i}"], f"mm{i}"),
            helper.make_node("Add", [f"m{i}", f"b{i}"], [f"y{i}"], f"add{i}"),
        ]
        source = f"y{i}"
    if nan:
        constants["w1"][100, 7] = np.nan
    constants |= {"zw": np.zeros(side, np.int8), "float": rng.normal(size=(side, side)).astype(np.float32)}
    nodes.append(helper.make_node("MatMul", [source, "float"], ["y"], "plain"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", side])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    path = folder / "source.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path, save_as_external_data=external, location="source.data", size_threshold=1024)
    return path


@dataclass
class Counts:
    """Bytes moved between files and memory, and arrays that quantization made."""

    read: int = 0
    written: int = 0
    blocks: list[int] = field(default_factory=list)
    whole: int = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    found = Counts()
    preadv, pwrite = os.preadv, os.pwrite
    load = file_tensor._load

    def counted_read(handle: int, buffers: Any, offset: int) -> int:
        count = preadv(handle, buffers, offset)
        found.read += count
        found.blocks.append(count)
        return count

    def counted_write(handle: int, content: Any, offset: int) -> int:
        count = pwrite(handle, content, offset)
        found.written += count
        return count

    def counted_load(*arguments: Any) -> Any:
        found.whole += 1
        return load(*arguments)

    monkeypatch.setattr(os, "preadv", counted_read)
    monkeypatch.setattr(os, "pwrite", counted_write)
    monkeypatch.setattr(file_tensor, "_load", counted_load)
    yield found


def bytes_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir())


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("form", ["int8", "float32"])
def test_every_byte_is_read_and_written_once(tmp_path: Path, counts: Counts, external: bool, form: str) -> None:
    """Counts that noise cannot move: the source is read once for both models, no tensor is ever whole in memory."""
    source = matmuls(tmp_path, external=external)
    size = source.stat().st_size + ((tmp_path / "source.data").stat().st_size if external else 0)
    amct_onnx.convert_qat_model(source, tmp_path / "out" / "m", fake_quant_weights=form)
    weights = (LAYERS + 1) * SIDE * SIDE * 4
    # what is not weights may be read again: in windows of the scan, as small factors by plan, by a second model
    assert weights <= counts.read <= weights + 4 * (size - weights) + 2 * (LAYERS + 1) * 2**18
    # the journal is written too; it is removed at the end
    assert bytes_of(tmp_path / "out") <= counts.written <= bytes_of(tmp_path / "out") + 3000
    assert max(counts.blocks) <= file_tensor.BLOCK_BYTES
    # small float tensors (scales, biases) of an external file may be read as a whole, weights may not
    assert counts.whole <= (6 * LAYERS if external else 0)


@pytest.mark.parametrize("inline_limit", [compose.INLINE_LIMIT, 300_000, 0])
@pytest.mark.parametrize("form", ["int8", "float32"])
@pytest.mark.parametrize("block", [file_tensor.BLOCK_BYTES, 5000, 500])  # a row has 1,024 bytes
def test_forms_and_layouts_give_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline_limit: int, form: str, block: int
) -> None:
    monkeypatch.setattr(compose, "INLINE_LIMIT", inline_limit)
    monkeypatch.setattr(file_tensor, "BLOCK_BYTES", block)
    source = matmuls(tmp_path)
    report = amct_onnx.convert_qat_model(source, tmp_path / "out" / "m", fake_quant_weights=form)
    x = np.random.default_rng(1).normal(size=(5, SIDE)).astype(np.float32)
    fake = ort.InferenceSession(report.fake_quant_model, amct_onnx.AMCT_SO).run(None, {"x": x})[0]
    np.testing.assert_array_equal(fake, evaluate(Path(report.deploy_model), {"x": x})["y"])
    stored = {t.name: t for t in onnx.load(report.fake_quant_model, load_external_data=False).graph.initializer}
    assert stored["w0"].data_type == (TensorProto.FLOAT if form == "float32" else TensorProto.INT8)
    assert stored["b0"].data_type == (TensorProto.FLOAT if form == "float32" else TensorProto.INT32)
    deploy = {t.name: t for t in onnx.load(report.deploy_model, load_external_data=False).graph.initializer}
    kept = [n for n, t in deploy.items() if t.data_location != TensorProto.EXTERNAL]
    if (
        inline_limit == 300_000
    ):  # the float weight goes first: the integers stay in the model file as long as it holds them
        assert set(deploy) - set(kept) == {"float"}
    assert ("w0" in kept) == (inline_limit > 0)
    assert any("when ATC compiles it" in w for w in report.warnings) == (inline_limit == 0)
    assert deploy["mm0.dequant.param"].data_location != TensorProto.EXTERNAL
    onnx.checker.check_model(report.fake_quant_model)
    golden = onnx.load(report.deploy_model)
    weight = next(numpy_helper.to_array(t) for t in golden.graph.initializer if t.name == "w2")
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer}
    expected = np.clip(np.rint(tensors["w2"] / tensors["sw2"][:, None]), -128, 127).astype(np.int8).T
    np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("name", MODEL_CASES[:6])
def test_float32_form_of_real_models_equals_int8_form(name: str, tmp_path: Path) -> None:
    model = MODELS / name / "model.onnx"
    inputs = None
    results = []
    for form in ("int8", "float32"):
        report = amct_onnx.convert_qat_model(model, tmp_path / form / "m", fake_quant_weights=form)
        session = ort.InferenceSession(report.fake_quant_model, amct_onnx.AMCT_SO)
        if inputs is None:
            rng = np.random.default_rng(0)
            inputs = {
                i.name: rng.normal(size=[d if isinstance(d, int) else 2 for d in i.shape]).astype(np.float32)
                for i in session.get_inputs()
            }
        results.append(session.run(None, inputs))
        onnx.checker.check_model(report.fake_quant_model)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weight_that_is_not_a_number(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"'w1': it holds nan"):
        amct_onnx.convert_qat_model(matmuls(tmp_path, nan=True), tmp_path / "out" / "m")
    assert not (tmp_path / "out").exists()


def test_unknown_form(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="'float16'"):
        amct_onnx.convert_qat_model(matmuls(tmp_path), tmp_path / "m", fake_quant_weights="float16")


def test_progress_is_in_bytes_and_ends_at_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    amct_onnx.convert_qat_model(
        matmuls(tmp_path), tmp_path / "m", progress=lambda done, total: calls.append((done, total))
    )
    weights = 2 * LAYERS * SIDE * SIDE + 2 * SIDE * SIDE * 4
    assert calls[-1] == (weights, weights)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def traced_peak(source: Path, out: Path) -> int:
    """Bytes of Python's and numpy's allocations at their highest."""
    tracemalloc.start()
    try:
        amct_onnx.convert_qat_model(source, out / "m")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def calls_of(source: Path, out: Path) -> int:
    """Function calls and returns in this thread, those of C functions as well."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        amct_onnx.convert_qat_model(source, out / "m")
    finally:
        sys.setprofile(None)
    return count


def test_memory_does_not_grow_with_the_weights(tmp_path: Path) -> None:
    """64 MB of weights cost blocks, and one int8 tensor with its copy where a Transpose changes the layout."""
    peaks = []
    for folder, side in (("first", 16), ("small", 16), ("large", 2048)):  # the first one imports and fills caches
        (tmp_path / folder).mkdir()
        peaks.append(traced_peak(matmuls(tmp_path / folder, side=side), tmp_path / folder / "out"))
    # of each worker: a block, its quotient, its integers and what they are made of
    assert peaks[2] - peaks[1] <= write.MAX_WORKERS * 3 * file_tensor.BLOCK_BYTES + 2 * side**2


def test_layers_cost_the_same_however_many_there_are(tmp_path: Path) -> None:
    """Twice the layers: twice the calls and the memory."""
    calls, peaks = [], []
    for index, layers in enumerate((5, 5, 10, 20)):  # the first one imports and fills caches
        (tmp_path / str(index)).mkdir()
        source = matmuls(tmp_path / str(index), side=16, layers=layers)
        calls.append(calls_of(source, tmp_path / "counted"))
        peaks.append(traced_peak(source, tmp_path / "traced"))
    assert calls[3] - calls[2] <= 2.01 * (calls[2] - calls[1])  # what grew with the square of the layers gave 2.03
    # 93 kB for each layer on Python 3.11; 150 kB when both rewritten graphs are alive at once
    assert peaks[3] - peaks[2] <= 10 * 120_000
