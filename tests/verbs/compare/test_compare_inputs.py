"""What compare reads beside the models: nonsense is one error that names the file and the field."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amct_onnx
from amct_onnx.data.labels import read_labels
from amct_onnx.errors import AmctError, DataError, ModelFileError
from amct_onnx.files.read import read_model
from amct_onnx.graph.reasons import GROUPS, REASONS
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.ledger import BiasError, LayerEntry
from amct_onnx.verbs.compare.pairing import check_source, pair_layers
from amct_onnx.verbs.convert.ledger_schema import BiasErrorContent, LayerContent, LedgerContent
from amct_onnx.verbs.convert.read_ledger import read_ledger
from amct_onnx.verbs.convert.report import ConversionReport
from support.golden_models import GOLDENS, MODELS
from support.written_models import write_model

ROOT = Path(__file__).parents[3]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a conversion with int8 and float layers."""
    prefix = tmp_path_factory.mktemp("converted") / "m"
    amct_onnx.convert_qat_model(GOLDENS / "qat" / "net" / "qat.onnx", prefix)
    return prefix


def layer(index: int, **values: Any) -> Change:
    return lambda content: content["layers"][index].update(values)


def read(prefix: Path, text: str) -> None:
    """As compare does, up to the sessions."""
    file = Path(f"{prefix}_quant.json")
    kept = file.read_bytes()
    file.write_text(text, encoding="utf-8")
    try:
        ledger = read_ledger(prefix)
        pair_layers(ledger, read_model(ledger.fake_quant_model), read_model(ledger.deploy_model))
        check_source(ledger, normalise(read_model(GOLDENS / "qat" / "net" / "qat.onnx")))
    finally:
        file.write_bytes(kept)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        (r"\$.layers\[0\].scale_d", layer(0, scale_d=-1.0)),
        (r"\$.layers\[0\].scale_d", layer(0, scale_d=0)),
        (r"\$.layers\[0\].scale_d", layer(0, scale_d=1e39)),
        (r"\$.layers\[0\].scale_d", layer(0, scale_d="0.1")),
        (r"\$.layers\[0\].scale_d: null", layer(0, scale_d=None)),
        (r"\$.layers\[0\].offset_d", layer(0, offset_d=128)),
        (r"\$.layers\[0\].offset_d", layer(0, offset_d=1.0)),
        (r"\$.layers\[0\].scale_w: empty", layer(0, scale_w=[])),
        (r"\$.layers\[0\].scale_w\[1\]", layer(0, scale_w=[1.0, -1.0])),
        (r"\$.layers\[0\].verdict", layer(0, verdict="maybe")),
        (r"\$.layers\[0\].granularity", layer(0, granularity="per-row")),
        (r"\$.layers\[0\].op_type", layer(0, op_type="LSTM")),
        (r"\$.layers\[0\].reason", layer(0, reason="weight-type")),
        (r"\$.layers\[0\].output_scale", layer(0, output_scale=float("-1e-3"))),
        (
            r"\$.layers\[0\].bias_error.worst_channel",
            lambda c: c["layers"][0]["bias_error"].update(worst_channel=10**6),
        ),
        (r"\$.layers\[0\].bias_error.mean_lsb", lambda c: c["layers"][0]["bias_error"].update(mean_lsb=1e9)),
        (r"\$.layers\[0\]", lambda c: c["layers"][0].pop("detail")),
        (r"\$.layers\[0\].*`surplus`", layer(0, surplus=1)),
        (r"stands there 2 times", lambda c: c["layers"].append(c["layers"][0])),
        (r"\$.summary", lambda c: c["layers"].pop()),
        (r"\$.layers\[0\].name: is not among", layer(0, name="ghost")),
        (r"holds a node twice", lambda c: c["layers"][0]["deploy_nodes"].append(c["layers"][0]["name"])),
        (r"reads 'ghost'", layer(0, source_input="ghost")),
        (r"makes '.*', which the source does not", lambda c: layer(0, source_output=c["layers"][0]["source_input"])(c)),
        (r"\$.residuals\[0\].action", lambda c: c["residuals"].insert(0, {"tensor": "x", "action": "?", "detail": ""})),
        (r"\$.warnings", lambda c: c.update(warnings="none")),
        (r"\$.check.counts.error", lambda c: c["check"]["counts"].update(error=3)),
        (r"\$.schema_version", lambda c: c.update(schema_version=True)),
        (r"its version is 2", lambda c: c.update(schema_version=2)),
    ],
)
def test_ledger_that_is_nonsense_is_refused_by_field(converted: Path, field: str, change: Change) -> None:
    content = json.loads(Path(f"{converted}_quant.json").read_text(encoding="utf-8"))
    change(content)
    with pytest.raises(AmctError, match=field) as caught:
        read(converted, json.dumps(content))
    assert f"{converted}_quant.json" in str(caught.value) and "Convert" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "[" * 100_000, '{"schema_version": 1, "layers": ' + '{"a":' * 100_000),
        *('{"schema_version": 1e999}', '{"schema_version": ' + "9" * 5000 + "}", '{"schema_version": NaN}'),
        '{"schema_version": 1, "layers": "\\ud800"}',
    ],
)
def test_ledger_that_is_no_json_is_refused(converted: Path, text: str) -> None:
    with pytest.raises(ModelFileError, match="Convert the source again"):
        read(converted, text)


def test_ledger_of_too_many_values_costs_nothing(converted: Path) -> None:
    with pytest.raises(ModelFileError, match="more than 8,388,608 values"):
        read(converted, '{"schema_version": 1, "x": [' + "0," * (1 << 23) + "0]}")


def test_ledgers_of_all_kinds_of_models_are_read(tmp_path: Path) -> None:
    for number, options in enumerate(({}, {"gemm_per_channel": "vector", "asymmetric_weights": "sum"})):
        for name in ("torchfx_digitsnet_i8sym_op13", "torchfx_mlp3d_u8_op13", "torchfx_digitstf_u8_op17"):
            source = MODELS / name / "model.onnx"
            prefix = tmp_path / f"{name}{number}"
            report = amct_onnx.convert_qat_model(source, prefix, **options)  # type: ignore[arg-type]
            ledger = read_ledger(prefix)
            assert ledger.layers == report.layers and ledger.summary == report.summary()
            pair_layers(ledger, read_model(ledger.fake_quant_model), read_model(ledger.deploy_model))
            check_source(ledger, normalise(read_model(source)))


def test_schema_has_the_fields_that_are_written() -> None:
    assert LayerContent.__struct_fields__ == tuple(f.name for f in fields(LayerEntry))
    assert BiasErrorContent.__struct_fields__ == tuple(f.name for f in fields(BiasError))
    written = {"schema_version", "summary", *(f.name for f in fields(ConversionReport))}
    assert set(LedgerContent.__struct_fields__) == written


def test_reason_codes_are_those_of_the_code_and_of_the_page() -> None:
    page = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    assert re.findall(r"^### ([a-z0-9-]+)$", page, re.MULTILINE) == list(REASONS)
    assert [code for codes in GROUPS.values() for code in codes] == list(REASONS)
    raised = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"Refusal": 0, "note_refusal": 1}.get(node.func.id)
                if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                    raised.add(node.args[place].value)  # type: ignore[attr-defined]
    assert len(raised) > 15 and raised <= set(REASONS)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".txt"])
def test_labels_that_are_no_numbers_or_no_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"labels{suffix}"
    if suffix == ".npy":
        np.save(file, np.array(["a", "b"]))
    elif suffix == ".npz":
        np.savez(file, labels=np.array([1 + 2j]))
    else:
        os.mkfifo(file)
    with pytest.raises(DataError, match=r"not numbers|no such file"):
        read_labels(file)


def test_data_folder_with_a_pipe_ends(tmp_path: Path) -> None:
    from amct_onnx.data.input_spec import InputSpec
    from amct_onnx.data.read_feeds import read_feeds

    os.mkfifo(tmp_path / "0.npy")
    with pytest.raises(DataError, match="pipe or device"):
        list(read_feeds(tmp_path, [InputSpec("x", (2,), np.dtype(np.float32))]))


def test_operator_whose_first_output_nothing_reads(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    constants = {
        "s": np.float32(0.05),
        "w": random.normal(size=(1, 16, 8)).astype(np.float32),
        "r": random.normal(size=(1, 16, 4)).astype(np.float32),
    }
    text = """g (float[3, 2, 8] x) => (float y) {
        q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) all, last = LSTM <hidden_size = 4> (d, w, r) y = Neg(last)
    }"""
    amct_onnx.convert_qat_model(write_model(tmp_path / "m.onnx", text, constants), tmp_path / "out")
    ledger = read_ledger(tmp_path / "out")
    pair = pair_layers(ledger, read_model(ledger.fake_quant_model), read_model(ledger.deploy_model))[0]
    assert pair.fake_quant is not None and pair.fake_quant.output == pair.source.output == "last"
    check_source(ledger, normalise(read_model(tmp_path / "m.onnx")))
