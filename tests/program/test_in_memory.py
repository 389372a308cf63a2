"""Models, data, labels and evaluators in memory give the numbers of the same things in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import amct_onnx
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.errors import DataError, ModelFileError, SettingError
from support.comparison_cases import Case
from support.small_models import qdq_model

INPUTS = [InputSpec("a", (1, 2), np.dtype(np.float32)), InputSpec("b", (3,), np.dtype(np.int64))]
A, B = np.arange(8, dtype=np.float32).reshape(4, 2), np.arange(12).reshape(-1)


def test_model_in_memory_converts_as_its_file(tmp_path: Path) -> None:
    path = qdq_model(tmp_path)
    amct_onnx.convert_qat_model(path, "file")
    proto = onnx.load(path)
    before = proto.SerializeToString()
    for name, model in (("proto", proto), ("ir", ir.from_proto(proto))):
        report = amct_onnx.convert_qat_model(model, name)
        assert report.model_file == f"a model in memory (graph '{proto.graph.name}')"
        for kind in ("deploy_model", "fake_quant_model"):
            assert Path(f"{name}_{kind}.onnx").read_bytes() == Path(f"file_{kind}.onnx").read_bytes()
        data = np.ones((2, 3), np.float32)
        assert amct_onnx.compare(path, name, data).verdict.level in ("equal", "noise")  # its ledger knows the file
    assert proto.SerializeToString() == before


def test_model_in_memory_is_checked_as_its_file(tmp_path: Path) -> None:
    report = amct_onnx.convert_qat_model(qdq_model(tmp_path), "m")
    expected = amct_onnx.check(report.deploy_model)
    assert amct_onnx.check(onnx.load(report.deploy_model)).findings == expected.findings
    assert amct_onnx.check(ir.load(report.deploy_model)).findings == expected.findings


def test_other_objects_and_weights_without_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="The model is a dict"):
        amct_onnx.convert_qat_model({}, "m")  # type: ignore[arg-type]
    path = qdq_model(tmp_path)
    onnx.save(onnx.load(path), "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    with pytest.raises(ModelFileError, match=r"in the file 'e\.data'"):
        amct_onnx.convert_qat_model(onnx.load("e.onnx", load_external_data=False), "m")
    assert not list(tmp_path.glob("m_*"))


def test_arrays_are_cut_like_files() -> None:
    source = amct_onnx.open_data({"a": A, "b": B, "other": A}, INPUTS)
    feeds = list(source)
    assert [f["b"].tolist() for f in feeds] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert [f["a"].tolist() for f in feeds] == [[row] for row in A.tolist()]
    parts = amct_onnx.open_data([{"a": A[:3], "b": B[:9]}, {"a": A[3:], "b": B[9:]}], INPUTS)
    assert [f["b"].tolist() for f in parts] == [f["b"].tolist() for f in feeds]
    labelled = list(amct_onnx.open_data(A, INPUTS[:1], labels=[3, 1, 0, 2]).labelled())
    assert [labels.tolist() for _, labels in labelled if labels is not None] == [[3], [1], [0], [2]]


@pytest.mark.parametrize(
    ("data", "inputs", "words"),
    [
        (A, INPUTS, "Give a dict"),
        ({"a": A}, INPUTS, "no 'b'"),
        ({"a": A.astype(np.float64), "b": B}, INPUTS, r"\.astype\('float32'\)"),
        ({"a": A[:, :1], "b": B}, INPUTS, "Reshape it"),
        ({"a": A[:3], "b": B}, INPUTS, "different numbers of feeds"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(data: Any, inputs: list[InputSpec], words: str) -> None:
    with pytest.raises(DataError, match=words):
        list(amct_onnx.open_data(data, inputs))


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="labels: holds 3 labels"):
        list(amct_onnx.open_data(A, INPUTS[:1], labels=[0, 1, 2]))
    with pytest.raises(DataError, match="labels: holds <U1, not numbers"):
        amct_onnx.open_data(A, INPUTS[:1], labels=np.array(["a"]))


def test_comparison_in_memory_is_that_of_files(digits: Case) -> None:
    expected = digits.compare(labels=digits.labels).to_dict()
    with np.load(digits.data) as archive:
        arrays = dict(archive)
    found = digits.compare(data=arrays, labels=np.load(digits.labels)).to_dict()
    for name in ("models", "outputs", "layers", "flips"):
        assert found[name] == expected[name], name
    assert found["data"] == "arrays in memory"


class Own:
    """Metrics as methods."""

    def evaluate(self, outputs: Any, feeds: Any, labels: Any) -> dict[str, Any]:
        return {"mean": next(iter(outputs.values())).mean(axis=1)}

    def finish(self, sums: dict[str, float], samples: int) -> dict[str, float]:
        return {"twice": 2 * sums["mean"] / samples}


def test_evaluator_in_memory(digits: Case) -> None:
    function = digits.compare(evaluator=lambda outputs, feeds, labels: Own().evaluate(outputs, feeds, labels))
    methods = digits.compare(evaluator=Own())
    for one, two in zip(function.models, methods.models, strict=True):
        assert [m.name for m in one.metrics] == ["mean"] and [m.name for m in two.metrics] == ["twice"]
        assert two.metrics[0].value == 2 * one.metrics[0].value
    with pytest.raises(SettingError, match="Give a Python file"):
        digits.compare(evaluator=Own(), dask="tcp://localhost:1")
    with pytest.raises(DataError, match="defines no function evaluate"):
        digits.compare(evaluator=object())


def test_simulate_and_doctor_take_arrays(tmp_path: Path) -> None:
    path = qdq_model(tmp_path)
    report = amct_onnx.convert_qat_model(path, "m")
    x = np.ones((2, 3), np.float32)
    np.save("x.npy", x)
    assert amct_onnx.simulate(report.deploy_model, x, "one").feeds == 1
    amct_onnx.simulate(report.deploy_model, "x.npy", "two")
    names = [p.relative_to("one") for p in Path("one").rglob("*.npy")]
    before = sorted(p.name for p in Path().iterdir())
    assert names and all((Path("one") / n).read_bytes() == (Path("two") / n).read_bytes() for n in names)
    held = amct_onnx.simulate(report.deploy_model, x)
    assert held.feeds == 1 and held.folder == "" and sorted(p.name for p in Path().iterdir()) == before
    (outputs,) = held.outputs
    for name, array in outputs.items():
        assert np.array_equal(array, np.load(Path("one") / next(n for n in names if name in n.name)))
    assert held.summary().endswith("outputs in memory") and "outputs" not in held.to_dict()
    assert amct_onnx.doctor(path, x).data == "arrays in memory"
    assert amct_onnx.atc_command(report.deploy_model, "310P", input_shape="x:2,3").words[0] == "atc"
