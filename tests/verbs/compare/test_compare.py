"""compare: healthy models, its figures, the command as a user types it, bad inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import DataError
from support import comparison_cases as cases
from support.comparison_cases import Case, converted

EVERY_DEVICE = ("reference", "ascend950", "a2", "310p", "310")
HEALTHY = (
    "torchfx_digitstf_u8_op17",
    "torchfx_mlp3d_i8sym_op13",  # the largest pixel lies half a step outside the first quantizer
    # layers that follow one another enlarge an error by more than their mean weights tell
    "brevitas_mlp3d_pc_qonnx_op13",
    "torchfq_digitsnet_i8sym_fp16_dynamo20",
)
EVERY = tuple(sorted(p.name for p in cases.MODELS.iterdir()))


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_models_have_no_fault(name: str, tmp_path: Path) -> None:
    _healthy(name, tmp_path, ("reference", "a2"))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_healthy_models_have_no_fault_on_any_device(name: str, tmp_path: Path) -> None:
    _healthy(name, tmp_path, EVERY_DEVICE)


def _healthy(name: str, folder: Path, devices: tuple[str, ...]) -> None:
    case = converted(name, folder)
    found = case.compare(devices=devices)
    assert found.complete
    assert found.verdict.level != "diverges", found.verdict
    assert not found.verdict.brief or found.verdict.level == "incomplete"  # no hint at other data
    assert len(found.models) == 2 + len(devices)
    assert all(layer.compared for layer in found.layers if layer.verdict == "converted")
    json.dumps(found.to_dict(), allow_nan=False)


def test_source_whose_nodes_stand_in_no_order_is_compared(small: Case, tmp_path: Path) -> None:
    model = onnx.load(small.source)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    source, prefix = tmp_path / "reversed.onnx", tmp_path / "reversed"
    onnx.save(model, source)
    converted = amct_onnx.convert_qat_model(source, prefix)
    found = amct_onnx.compare(source, prefix, small.data)
    assert found.verdict.level in ("equal", "noise"), found.verdict
    assert found.cost == converted.cost is not None


def test_statistics_are_those_of_the_models_run_by_hand(digits: Case) -> None:
    found = digits.compare(labels=digits.labels, batch_size=7, threads=None)
    x = np.load(digits.data)
    feeds = {name: x[name] for name in x.files}
    labels = np.load(digits.labels)
    source = ort.InferenceSession(digits.source, amct_onnx.AMCT_SO).run(None, feeds)[0]
    deploy = amct_onnx.DeploySession(digits.deploy, device="a2").run(None, feeds)[0]
    assert found.samples == found.samples_total == len(labels)
    difference = next(d for d in found.outputs[0].differences if d.model == "deploy@a2")
    # float32 convolutions of other batch sizes may add in another order
    assert difference.max_abs == pytest.approx(float(np.abs(deploy - source).max()), rel=1e-4)
    assert difference.count == source.size
    error = deploy.astype(np.float64) - source
    assert difference.sqnr_db == pytest.approx(
        10 * np.log10((source.astype(np.float64) ** 2).sum() / (error**2).sum()), abs=0.01
    )
    assert difference.top1_agreement == np.mean(deploy.argmax(axis=1) == source.argmax(axis=1))
    _first_layer_reads_the_input(found, x[x.files[0]])
    for entry, scores in ((found.models[0], source), (found.models[2], deploy)):
        right = int((scores.argmax(axis=1) == labels).sum())
        assert [(m.name, m.right) for m in entry.metrics if m.name == "top-1"] == [("top-1", right)]


def _first_layer_reads_the_input(found: amct_onnx.CompareReport, x: np.ndarray) -> None:
    first = found.layers[0]
    assert first.input is not None and first.scale_d is not None and first.offset_d is not None
    integers = np.rint(x / np.float32(first.scale_d)) + first.offset_d
    x, integers = (np.concatenate([v[:7], v[56:63]]) for v in (x, integers))  # of the batches 0 and 8
    counts = np.bincount(((integers.clip(-128, 127) + 128) // 8).astype(int).reshape(-1), minlength=32)
    # a pixel of one half lies on the edge of two bins, in either by rounding
    assert first.input.counts[17:32] == tuple(counts[:15]) and first.input.counts[34:49] == tuple(counts[17:])
    assert sum(first.input.counts) == first.input.values == x.size
    assert not any(first.input.counts[:17] + first.input.counts[49:])
    assert [(n.op_type, n.own) for n in first.deploy_nodes] == [
        ("AscendQuant", True),
        ("Conv", True),
        ("AscendDequant", True),
        ("Relu", False),
        ("AscendQuant", False),
    ]
    assert [n.op_type for n in first.source_nodes] == [
        "QuantizeLinear",
        "DequantizeLinear",
        "Conv",
        "Relu",
        "QuantizeLinear",
    ]
    assert [n.reads for n in first.source_nodes] == [(), (0,), (1,), (2,), (3,)]


def test_refused_layers_are_named_with_their_reason(tmp_path: Path) -> None:
    case = converted("torchfx_digitsnet_i8weightonly_op13", tmp_path)
    found = case.compare()
    refused = [layer for layer in found.layers if layer.verdict == "refused"]
    assert refused
    text = " ".join(found.verdict.sentences)
    assert all(layer.name in text and str(layer.reason) in text for layer in refused[:5])


def test_evaluator_gives_metrics_of_every_model(digits: Case, tmp_path: Path) -> None:
    file = tmp_path / "metric.py"
    file.write_text(
        "import numpy as np\n"
        "def evaluate(outputs, feeds, labels):\n"
        "    scores = next(iter(outputs.values()))\n"
        "    return {'margin': np.sort(scores, axis=1)[:, -1], 'right': scores.argmax(axis=1) == labels}\n"
        "def finish(sums, samples):\n"
        "    return {'margin': sums['margin'] / samples, 'error': 1 - sums['right'] / samples}\n"
    )
    found = digits.compare(labels=digits.labels, evaluator=file)
    for model in found.models:
        figures = {m.name: m.value for m in model.metrics}
        assert figures["error"] == pytest.approx(1 - figures["top-1"])
        assert figures["margin"] > 0


def test_command_writes_reports_with_the_numbers_it_prints(
    digits: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, file = tmp_path / "out" / "report.html", tmp_path / "out" / "report.json"
    options = ["-v", "--labels", str(digits.labels), "--device", "a2,310p", "--device", "reference"]
    assert main([*digits.arguments, *options, "--report", str(page), "--json-report", str(file)]) == 0
    printed = capsys.readouterr().out
    content = json.loads(file.read_text(encoding="utf-8"))
    assert [m["key"] for m in content["models"]] == [
        "source",
        "fake-quant",
        "deploy@a2",
        "deploy@310p",
        "deploy@reference",
    ]
    assert content["verdict"]["headline"] in printed
    assert content["verdict"]["headline"] in page.read_text(encoding="utf-8")
    for layer in content["layers"]:
        assert layer["name"] in printed
        for difference in layer["differences"]:
            assert f"{difference['mean_lsb']:.3g}" in printed
    for key, value in content["models"][0]["settings"].items():
        assert f"{key}={value}" in printed
    assert not digits.state.exists()


def test_command_converts_when_asked_and_exits_with_1_on_a_fault(digits: Case, tmp_path: Path) -> None:
    other = ["compare", "--model", str(digits.source), "--save_path", str(tmp_path / "n"), "--data", str(digits.data)]
    assert main(other) == 2
    assert main([*other, "--convert", "--json"]) == 0
    cases.drop_bias(tmp_path / "n_deploy_model.onnx", digits.layers[1])
    assert main(other) == 1


def _bad(case: Case, tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    np.save(tmp_path / "few.npy", np.zeros(3, np.int64))
    np.save(tmp_path / "many.npy", np.full(64, 99))
    np.save(tmp_path / "rows.npy", np.zeros((64, 2), np.int64))
    np.savez(tmp_path / "two.npz", a=np.zeros(64), b=np.zeros(64))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    np.savez(tmp_path / "shape.npz", input=np.zeros((4, 3, 8, 8), np.float32))
    np.savez(tmp_path / "none.npz", input=np.zeros((0, 1, 8, 8), np.float32))
    holed = np.load(case.data)["input"]
    holed[8, 0, 3, 3] = np.nan
    np.savez(tmp_path / "nan.npz", input=holed)
    (tmp_path / "mean.py").write_text("def evaluate(outputs, feeds, labels):\n    return {'m': 0.5}\n")
    (tmp_path / "number.py").write_text("def evaluate(outputs, feeds, labels):\n    return 0.5\n")
    (tmp_path / "raises.py").write_text("def evaluate(outputs, feeds, labels):\n    raise KeyError('oops')\n")
    (tmp_path / "text.py").write_text("evaluate = 3\n")
    (tmp_path / "state.json").write_text("[1, 2]")
    (tmp_path / "folder").mkdir()
    return {
        "few labels": (["--labels", "few.npy"], "3 labels"),
        "label no class": (["--labels", "many.npy"], "A label is 99"),
        "labels of another shape": (["--labels", "rows.npy"], "fit no output"),
        "which labels": (["--labels", "two.npz"], "Name the labels"),
        "broken labels": (["--labels", "broken.npy"], "cannot be read as labels"),
        "no labels": (["--labels", "nothing.npy"], "no such file"),
        "shape": (["--data", "shape.npz"], "shape"),
        "no samples": (["--data", "none.npz"], "no samples"),
        "no data": (["--data", "nothing.npz"], "no such file"),
        "source of feeds": (["--data", "raises.py"], "defines no function feeds"),
        "evaluator raises": (["--evaluator", "raises.py"], "oops"),
        "one number for all samples": (["--evaluator", "mean.py"], "1 number for 'm' and 32 samples"),
        "a number alone": (["--evaluator", "number.py"], "returns float"),
        "NaN": (["--data", "nan.npz"], "sample 8 in it"),
        "no evaluator": (["--evaluator", "text.py"], "evaluate"),
        "nothing to resume": (["--resume"], "nothing to resume"),
        "state": (["--resume", "--state_file", "state.json"], "no state"),
        "model": (["--model", "nothing.onnx"], "nothing.onnx"),
        "prefix": (["--save_path", "nothing"], "convert"),
        "one name": (["--report", "a.html", "--json_report", "a.html"], "overwrite another output"),
        "report a folder": (["--report", "folder"], "folder"),
        "batch size": (["--batch_size", "-1"], "batch_size"),
        "board": (["--board", "nowhere"], "nowhere"),
        "board without dumps": (["--board", "folder"], "dump"),
        "metric": (["--max_drop", "1"], "Give labels or an evaluator"),
        "scheduler": (["--dask", "tcp://127.0.0.1:9"], "scheduler"),
    }


def test_bad_input_gives_one_clear_error(
    small: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from amct_onnx.verbs.compare.measure import dask_cluster

    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1)
    for name, (options, words) in _bad(small, tmp_path).items():
        assert main([*small.arguments, *options]) == 2, name
        error = capsys.readouterr().err
        assert words in error and "unexpected" not in error, (name, error)
        assert error.count("amct_onnx: error:") == 1, (name, error)
    assert main([*small.arguments, "--device", "a9"]) == 2
    assert "Unknown chip 'a9'" in capsys.readouterr().err


def test_missing_dumps_are_found_before_the_run(digits: Case) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        digits.compare(board="nowhere")
    assert not digits.states  # a run that fails at its end leaves one


def test_ledger_of_another_source_is_refused(digits: Case, capsys: pytest.CaptureFixture[str]) -> None:
    other: Any = cases.MODELS / "torchfx_digitstf_u8_op17" / "model.onnx"
    assert main([*digits.arguments, "--model", str(other)]) == 2
    assert "Convert" in capsys.readouterr().err


def test_deploy_model_of_a_fixed_batch_needs_that_batch_size(digits: Case) -> None:
    """A user fixes it for ATC; no number of the model is another."""
    model = onnx.load(digits.deploy)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, digits.deploy)
    with pytest.raises(DataError, match="Give the batch_size that this model fixes"):
        digits.compare()
    assert digits.compare(batch_size=1).verdict.level == "noise"
