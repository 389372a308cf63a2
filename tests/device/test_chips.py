"""Every name that a user may type finds its chip and its arithmetic, in every verb; an unknown one is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import amct_onnx
from amct_onnx.device.chips import CHIPS, find_chip, find_profile, soc_version_of
from amct_onnx.device.profiles import PROFILES
from amct_onnx.errors import SettingError
from support.small_models import qdq_model
from support.typed_command import command, in_process

NAMES = {
    "310": ("310", "310"),
    "Ascend310": ("310", "310"),
    "Ascend310P3": ("310P", "310p"),
    "310p3": ("310P", "310p"),
    "310P": ("310P", "310p"),
    "Ascend310P3Vir01": ("310P", "310p"),
    "310B": ("310B", "a2"),
    "Ascend310B4": ("310B", "a2"),
    "910": ("910", "310"),
    "910A": ("910", "310"),
    "Ascend910B": ("910", "310"),
    "910B": ("910B", "a2"),
    "a2": ("910B", "a2"),
    "Ascend910B2C": ("910B", "a2"),
    "Ascend910B4-1": ("910B", "a2"),
    "A3": ("A3", "a2"),
    "Ascend910_9372": ("A3", "a2"),
    "950": ("950", "ascend950"),
    "ascend950": ("950", "ascend950"),
    "Ascend950PR_957c": ("950", "ascend950"),
    "Ascend950DT_95a": ("950", "ascend950"),
}


@pytest.mark.parametrize("name", NAMES)
def test_name(name: str) -> None:
    assert (find_chip(name).name, find_profile(name).name) == NAMES[name]
    assert find_chip(name.lower()) is find_chip(name.upper()) is find_chip(name)


def test_names_are_unambiguous() -> None:
    taken = [n for c in CHIPS for n in {n.casefold() for n in (c.name, *c.other_names, *c.soc_versions)}]
    # Ascend910B is a SoC version of the first generation, 910B the name of another line
    assert len(taken) == len(set(taken))
    for chip in CHIPS:
        assert all(find_chip(n) is chip for n in (chip.name, *chip.other_names, *chip.soc_versions))
    assert {c.profile for c in CHIPS} | {"reference"} == set(PROFILES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("310P", "Ascend310P3"),
        ("Ascend310P", "Ascend310P3"),
        ("ascend950", "Ascend950PR_9599"),
        ("Ascend310", "Ascend310"),
        ("Ascend910B", "Ascend910B"),
        ("a2", "Ascend910B1"),
        ("ascend310p3", "Ascend310P3"),
        ("Ascend310P2", "Ascend310P2"),
    ],
)
def test_soc_version_for_atc(name: str, value: str) -> None:
    assert soc_version_of(name) == value


@pytest.mark.parametrize("wrong", ["Ascend310P9", "910D", "gpu", ""])
def test_unknown_name_is_refused_everywhere(wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = qdq_model(tmp_path)
    report = amct_onnx.convert_qat_model(model, tmp_path / "m")
    np.savez(tmp_path / "data.npz", x=np.zeros((1, 3), np.float32))
    deploy = report.deploy_model
    with pytest.raises(SettingError, match="Unknown chip"):
        amct_onnx.DeploySession(deploy, device=wrong)
    lines = [
        ["check", "--model", deploy, "--soc_version", wrong],
        ["atc", "--model", deploy, "--soc_version", wrong],
        ["simulate", "--model", deploy, "--data", "data.npz", "--save_path", "s", "--device", wrong],
        ["compare", "--model", str(model), "--save_path", "m", "--data", "data.npz", f"--device={wrong}"],
    ]
    if wrong == "":  # argparse refuses it, which ends the process
        result = command(*lines.pop())
        assert result.returncode == 2 and "empty name" in result.stderr
    for line in lines:
        result = in_process(capsys, *line)
        assert result.returncode == 2 and "Unknown chip" in result.stderr
    assert not (tmp_path / "s").exists()


def test_device_and_soc_version_take_the_same_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = qdq_model(tmp_path)
    deploy = amct_onnx.convert_qat_model(model, tmp_path / "m").deploy_model
    np.savez(tmp_path / "data.npz", x=np.zeros((1, 3), np.float32))
    for name in ("Ascend310P3", "910b"):
        assert in_process(capsys, "check", "--model", deploy, "--soc_version", name).returncode == 0
        assert amct_onnx.DeploySession(deploy, device=name).device == find_profile(name).name
    line = in_process(capsys, "atc", "--model", deploy, "--soc_version", "310P", "--input_shape", "x:1,3")
    assert "--soc_version=Ascend310P3" in line.stdout and "'310P' is compiled for as Ascend310P3" in line.stderr
    compared = in_process(
        capsys, "compare", "--model", str(model), "--save_path", "m", "--data", "data.npz", "--device", "310P,a2"
    )
    assert compared.returncode == 0 and "deploy@310p" in compared.stdout and "deploy@a2" in compared.stdout


def test_unknown_name_lists_each_known_name_once() -> None:
    with pytest.raises(SettingError) as caught:
        find_profile("gpu")
    names = str(caught.value).partition("known are ")[2].partition(". ")[0].casefold().split(", ")
    assert len(names) == len(set(names)) > len(CHIPS)
