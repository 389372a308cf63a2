"""A conversion from a float model and a record: its source is made for the comparison alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_onnx
from amct_onnx.convert_model import convert_model
from amct_onnx.errors import UnsupportedModelError
from amct_onnx.verbs.compare import recorded_source
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support.golden_models import GOLDENS

CASE = GOLDENS / "conv2d_bias"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float model of opset 11, whose record has a scale for each channel of the weight."""
    folder = tmp_path_factory.mktemp("recorded")
    model = onnx.load(CASE / "model.onnx")
    model.opset_import[0].version = 11
    onnx.save(model, folder / "source.onnx")
    convert_model(folder / "source.onnx", CASE / "record.txt", folder / "m")
    return folder / "source.onnx"


def test_scales_per_channel_below_opset_13(source: Path) -> None:
    (value,) = onnx.load(source).graph.input
    shape = [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = amct_onnx.compare(source, source.parent / "m", {value.name: data}, threads=1)
    assert all(len(e.scale_w) > 1 for e in found.layers) and found.layers
    assert not [d for d in found.divergences if d.is_fault] and not found.not_judged


def test_errors_name_the_file_that_the_user_gave(source: Path) -> None:
    ledger = read_ledger(source.parent / "m")
    with pytest.raises(UnsupportedModelError) as raised:
        with recorded_source.quantized_source(source, ledger) as (path, _):
            raise UnsupportedModelError(f"{path}: ONNX Runtime refuses the model. Check it.")
    assert str(raised.value).startswith(f"{source} (with the quantizers of the record that ") and str(path) not in str(
        raised.value
    )
