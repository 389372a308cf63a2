"""Hints for several devices are dropped with a warning, also a damaged one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_onnx
from support.small_models import qdq_model


@pytest.mark.skipif(
    "device_configurations" not in onnx.NodeProto.DESCRIPTOR.fields_by_name, reason="this onnx knows no such hints"
)
@pytest.mark.parametrize("name", ["", "two"])
def test_hints_for_several_devices_are_dropped(name: str, tmp_path: Path) -> None:
    path = qdq_model(tmp_path)
    plain = amct_onnx.convert_qat_model(path, "plain")
    model = onnx.load(path)
    for node in model.graph.node:
        node.device_configurations.add().configuration_id = name
    onnx.save(model, path)
    report = amct_onnx.convert_qat_model(path, "m")
    (warning,) = report.warnings
    assert "several devices is dropped" in warning
    for one, two in ((plain.deploy_model, report.deploy_model), (plain.fake_quant_model, report.fake_quant_model)):
        assert Path(one).read_bytes() == Path(two).read_bytes()
    assert amct_onnx.compare(path, "m", np.ones((2, 3), np.float32)).verdict.level in ("equal", "noise")
