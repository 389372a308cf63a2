"""compare: healthy models, injected faults, the command as a user types it, bad inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import amct_onnx
import comparison_cases as cases
from amct_onnx.cli import main
from amct_onnx.comparison import default_settings
from amct_onnx.comparison.report import Divergence
from comparison_cases import DIGITS, Case, converted

EVERY_DEVICE = ("reference", "ascend950", "a2", "310p", "310")
HEALTHY = (
    "torchfx_digitstf_u8_op17",
    "torchfx_digitsae_i8sym_op13",
    # layers that follow one another enlarge an error by more than their mean weights tell
    "brevitas_mlp3d_pc_qonnx_op13",
    "modelopt_mlp3d_int8_op17",
    "torchfunc_unetb_u8pt_op10",
    "torchfq_digitsnet_i8sym_fp16_dynamo20",
    "torchfx_digitsnet_i8asym_op13_b4",
)
EVERY = tuple(sorted(p.name for p in cases.MODELS.iterdir()))


@pytest.fixture
def digits(tmp_path: Path) -> Case:
    return converted(DIGITS, tmp_path)


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_models_have_no_fault(name: str, tmp_path: Path) -> None:
    _healthy(name, tmp_path, ("reference", "a2"))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_healthy_models_have_no_fault_on_any_device(name: str, tmp_path: Path) -> None:
    _healthy(name, tmp_path, EVERY_DEVICE)


def _healthy(name: str, folder: Path, devices: tuple[str, ...]) -> None:
    case = converted(name, folder)
    found = amct_onnx.compare(case.source, case.prefix, case.data, devices=devices)
    assert found.complete
    assert found.verdict.level != "diverges", found.verdict
    assert len(found.models) == 2 + len(devices)
    assert all(layer.compared for layer in found.layers if layer.verdict == "converted")
    json.dumps(found.to_dict(), allow_nan=False)


def test_statistics_are_those_of_the_models_run_by_hand(digits: Case) -> None:
    found = amct_onnx.compare(digits.source, digits.prefix, digits.data, labels=digits.labels, batch_size=7)
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
    for entry, scores in ((found.models[0], source), (found.models[2], deploy)):
        right = int((scores.argmax(axis=1) == labels).sum())
        assert [(m.name, m.right) for m in entry.metrics if m.name == "top-1"] == [("top-1", right)]


def _fault(case: Case, *devices: str) -> dict[str, tuple[str, str]]:
    found = amct_onnx.compare(case.source, case.prefix, case.data, devices=devices or ("reference", "a2"))
    return {d.model: (d.layer, d.cause) for d in found.divergences} if found.verdict.level == "diverges" else {}


@pytest.mark.parametrize("name", [DIGITS, "torchfx_digitstf_u8_op17"])
@pytest.mark.parametrize("position", [1, -1])
def test_wrong_scale_in_the_deploy_model_is_named(name: str, position: int, tmp_path: Path) -> None:
    case = converted(name, tmp_path)
    layer = _layers(case)[position]
    cases.scale_dequantizer(case.deploy, layer, 1.1)
    found = _fault(case)
    assert found["deploy@reference"] == found["deploy@a2"] == (layer, "scale-fault")
    assert "fake-quant" not in found or found["fake-quant"][1] != "scale-fault"


def test_wrong_scale_in_the_fake_quant_model_is_named(digits: Case) -> None:
    layer = _layers(digits)[2]
    cases.scale_fake_dequantizer(digits.fake_quant, layer, 0.9)
    assert _fault(digits)["fake-quant"] == (layer, "scale-fault")


@pytest.mark.parametrize(("name", "position"), [(DIGITS, 0), ("ort_digitsnet_qdq_u8_pc", 3)])
def test_dropped_bias_is_named(name: str, position: int, tmp_path: Path) -> None:
    case = converted(name, tmp_path)
    layer = _layers(case)[position]
    cases.drop_bias(case.deploy, layer)
    found = _fault(case, "a2")
    assert found["deploy@a2"] == (layer, "bias-fault")


def _named(case: Case, devices: tuple[str, ...] = ("a2",)) -> Divergence:
    """What is said of the deploy model, which must be a fault."""
    found = amct_onnx.compare(case.source, case.prefix, case.data, devices=devices)
    assert found.verdict.level == "diverges", found.verdict
    return next(d for d in found.divergences if d.model == f"deploy@{devices[0]}")


def test_one_wrong_channel_is_named_with_its_factor(digits: Case) -> None:
    layer = _layers(digits)[2]
    cases.scale_channel(digits.deploy, layer, 5, 1.5)
    found = _named(digits)
    assert (found.layer, found.cause) == (layer, "scale-fault")
    assert "in channel 5 (1 of 32 channels is wrong)" in found.text
    assert "1.5 times the source's in channel 5" in found.text and "AscendDequant" in found.text


@pytest.mark.parametrize(("by", "cause"), [(500, "bias-fault"), (3, "bias-fault")])
def test_one_wrong_bias_is_named_with_its_channel(digits: Case, by: int, cause: str) -> None:
    layer = _layers(digits)[1]
    cases.change_constant(digits.deploy, layer, 2, 7, by)
    found = _named(digits)
    assert (found.layer, found.cause) == (layer, cause)
    assert "in channel 7 (1 of 16 channels is wrong)" in found.text


@pytest.mark.parametrize("by", [-1, 20])
def test_one_wrong_weight_is_named_with_its_channel(digits: Case, by: int) -> None:
    layer = _layers(digits)[2]
    cases.change_constant(digits.deploy, layer, 1, 10 * 16 + 4, by)
    found = _named(digits)
    assert found.layer == layer and "in channel 10 (1 of 32 channels is wrong)" in found.text
    assert found.cause in ("weight-fault", "scale-fault")


def test_swapped_weights_are_named_at_the_first_of_both_layers(digits: Case) -> None:
    one, other = _layers(digits)[3:5]
    cases.swap_weights(digits.deploy, one, other)
    found = _named(digits)
    assert (found.layer, found.cause) == (one, "weight-fault")


def test_wrong_quantizer_is_named_with_what_the_ledger_says(digits: Case) -> None:
    layer = _layers(digits)[2]
    quantizer = cases.change_quantizer(digits.deploy, layer, factor=1.1)
    found = _named(digits)
    assert (found.layer, found.cause) == (layer, "scale-fault")
    assert f"AscendQuant '{quantizer}' has scale" in found.text and "the ledger says" in found.text


@pytest.mark.parametrize("offset", [1, -40])
def test_wrong_zero_point_is_named(digits: Case, offset: int) -> None:
    """The device takes the offset back behind the layer: a small one only moves the range."""
    layer = _layers(digits)[3]
    quantizer = cases.change_quantizer(digits.deploy, layer, offset=offset)
    found = _named(digits)
    assert found.layer == layer and f"AscendQuant '{quantizer}' has offset" in found.text


@pytest.mark.parametrize(("factor", "offset"), [(1.2, 0), (1.03, 0), (1.0, 1)])
def test_wrong_antiquant_at_an_add_is_named(digits: Case, factor: float, offset: int) -> None:
    """No int8 layer is wrong, what stands between two of them is."""
    name = cases.change_antiquant(digits.deploy, factor=factor, offset=offset)
    found = _named(digits)
    assert (found.layer, found.place, found.cause) == ("/c2.0/Conv", "before", "fault-between-layers")
    assert f"AscendAntiQuant '{name}' has" in found.text


def test_ledger_edited_by_hand_is_named(digits: Case) -> None:
    file = Path(f"{digits.prefix}_quant.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    content["layers"][1]["scale_w"][0] *= 2
    file.write_text(json.dumps(content), encoding="utf-8")
    found = _named(digits)
    assert found.cause == "ledger-contradiction" and found.layer == content["layers"][1]["name"]


@pytest.mark.parametrize("position", [0, 4])
def test_saturating_layer_is_named(digits: Case, position: int) -> None:
    layer = _layers(digits)[position]
    cases.narrow_quantizer(digits.deploy, layer, 4.0)
    found = _fault(digits)
    assert found["deploy@reference"] == found["deploy@a2"] == (layer, "saturation")


def test_refused_layers_are_named_with_their_reason(tmp_path: Path) -> None:
    case = converted("torchfx_digitsnet_i8weightonly_op13", tmp_path)
    found = amct_onnx.compare(case.source, case.prefix, case.data)
    refused = [layer for layer in found.layers if layer.verdict == "refused"]
    assert refused
    text = " ".join(found.verdict.sentences)
    assert all(layer.name in text and str(layer.reason) in text for layer in refused[:5])


def test_false_witness_is_named_with_figures(digits: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether default settings lie depends on the CPU: here a wrong model stands in for them."""
    lying = tmp_path / "lying.onnx"
    model = onnx.load(digits.source)
    bias = next(
        i
        for i in model.graph.initializer
        if i.name == next(n for n in model.graph.node if n.op_type == "Gemm").input[2]
    )
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(3), bias.name))
    onnx.save(model, lying)
    real = default_settings.open_default
    monkeypatch.setattr(default_settings, "open_default", lambda path: real(lying))
    found = amct_onnx.compare(digits.source, digits.prefix, digits.data, labels=digits.labels)
    assert any(s.startswith("False witness:") and "LSB" in s for s in found.verdict.sentences)
    assert any("disable_quant_qdq" in a for a in found.verdict.advice)
    assert found.models[0].notes and found.models[0].settings is not None
    assert found.models[0].settings["session.disable_quant_qdq"] == "1"


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
    found = amct_onnx.compare(digits.source, digits.prefix, digits.data, labels=digits.labels, evaluator=file)
    for model in found.models:
        figures = {m.name: m.value for m in model.metrics}
        assert figures["error"] == pytest.approx(1 - figures["top-1"])
        assert figures["margin"] > 0


def test_command_writes_reports_with_the_numbers_it_prints(
    digits: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, file = tmp_path / "out" / "report.html", tmp_path / "out" / "report.json"
    options = ["--labels", str(digits.labels), "--device", "a2,310p", "--device", "reference"]
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
    cases.drop_bias(tmp_path / "n_deploy_model.onnx", _layers(digits)[1])
    assert main(other) == 1


def _layers(case: Case) -> list[str]:
    ledger = json.loads(Path(f"{case.prefix}_quant.json").read_text(encoding="utf-8"))
    return [e["name"] for e in ledger["layers"] if e["verdict"] == "converted"]


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
        "one number for all samples": (["--evaluator", "mean.py"], "1 numbers for 'm' and 32 samples"),
        "a number alone": (["--evaluator", "number.py"], "returns float"),
        "NaN": (["--data", "nan.npz"], "sample 8 in it"),
        "no evaluator": (["--evaluator", "text.py"], "evaluate"),
        "nothing to resume": (["--resume"], "nothing to resume"),
        "state": (["--resume", "--state_file", "state.json"], "no state"),
        "model": (["--model", "nothing.onnx"], "nothing.onnx"),
        "prefix": (["--save_path", "nothing"], "convert"),
        "one name": (["--report", "a.html", "--json_report", "a.html"], "two names"),
        "report a folder": (["--report", "folder"], "folder"),
        "batch size": (["--batch_size", "-1"], "batch_size"),
        "board": (["--board", "nowhere"], "nowhere"),
        "board without dumps": (["--board", "folder"], "dump"),
        "scheduler": (["--dask", "tcp://127.0.0.1:9"], "scheduler"),
    }


def test_bad_input_gives_one_clear_error(
    digits: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from amct_onnx.comparison import dask_cluster

    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1)
    for name, (options, words) in _bad(digits, tmp_path).items():
        assert main([*digits.arguments, *options]) == 2, name
        error = capsys.readouterr().err
        assert words in error and "unexpected" not in error, (name, error)
        assert error.count("amct_onnx: error:") == 1, (name, error)
    with pytest.raises(SystemExit):
        main([*digits.arguments, "--device", "a3"])


def test_ledger_of_another_source_is_refused(digits: Case, capsys: pytest.CaptureFixture[str]) -> None:
    other: Any = cases.MODELS / "torchfx_digitstf_u8_op17" / "model.onnx"
    assert main([*digits.arguments, "--model", str(other)]) == 2
    assert "Convert" in capsys.readouterr().err


@pytest.fixture
def dumped(digits: Case, tmp_path: Path) -> Path:
    """What a board would dump: three feeds of eight samples."""
    x = np.load(digits.data)
    name = x.files[0]
    folder = tmp_path / "feeds"
    folder.mkdir()
    for index in range(3):
        np.save(folder / f"{index}.npy", x[name][8 * index : 8 * index + 8])
    out = ["--save_path", str(tmp_path / "board"), "--dump", "layers", "--device", "a2"]
    assert main(["simulate", "--model", str(digits.deploy), "--data", str(folder), *out]) == 0
    return tmp_path / "board"


def _board(case: Case, folder: Path, device: str = "a2") -> amct_onnx.CompareReport:
    return amct_onnx.compare(case.source, case.prefix, folder.parent / "feeds", devices=[device], board=folder)


def test_board_that_computes_as_simulated_differs_nowhere(digits: Case, dumped: Path) -> None:
    found = _board(digits, dumped).board
    assert found is not None and found.feeds == 3 and not found.missing
    assert (found.layer, found.fault) == ("", False)
    assert {t.tensor for t in found.tensors} == {"input", "accumulator", "output", "graph output"}
    assert all(t.difference.exact and t.feeds == 3 for t in found.tensors)
    json.dumps(_board(digits, dumped).to_dict(), allow_nan=False)


def test_board_with_other_weights_is_named_at_the_layer_that_has_them(
    digits: Case, dumped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files of a real device: its own op_type, task and time in the name, raw numbers, float16 results."""
    layer = _layers(digits)[3]
    op_name = layer.replace("/", "_").replace(".", "_")
    for folder in sorted(dumped.iterdir()):
        if not folder.is_dir():
            continue
        for file in folder.glob(f"*.{op_name}.output.0.npy"):
            wrong = np.load(file)
            wrong[:, 5] += 300
            wrong.tofile(folder / f"Conv2D.{op_name}.12.3.1700000000.output.0.bin")
            file.unlink()
        for file in folder.glob("AscendDequant.*.output.0.npy"):
            np.save(file, np.load(file).astype(np.float16))
    page = dumped.parent / "page.html"
    options = ["--data", str(dumped.parent / "feeds"), "--board", str(dumped), "--report", str(page)]
    assert main([*digits.arguments, *options]) == 1
    printed = capsys.readouterr().out
    assert 'id="board"' in page.read_text(encoding="utf-8")
    assert f"The board goes wrong at layer '{layer}' (accumulator)" in printed and "by up to 300 LSB" in printed
    found = _board(digits, dumped).board
    assert found is not None and found.fault and (found.layer, found.tensor) == (layer, "accumulator")


def test_board_of_another_product_differs_by_its_rounding_alone(digits: Case, dumped: Path) -> None:
    report = _board(digits, dumped, "reference")
    found = report.board
    assert found is not None and not found.fault and found.layer in _layers(digits)
    assert report.verdict.level != "diverges"


def test_dumps_that_do_not_fit_are_refused(digits: Case, dumped: Path) -> None:
    file = next((dumped / "000001").glob("Conv.*.input.0.npy"))
    for content in (b"none", b""):
        file.write_bytes(content)
        with pytest.raises(amct_onnx.DataError, match="cannot be read"):
            _board(digits, dumped)
    np.save(file, np.zeros(3, np.int8))
    with pytest.raises(amct_onnx.DataError, match="is not the input of shape"):
        _board(digits, dumped)
