"""compare and simulate on what a board is fed: the same as on the images that AIPP makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.data.aipp_config import aipp_digest
from amct_onnx.data.images import ImageFolder
from support.comparison_cases import Case

CONFIG = "aipp_op { aipp_mode: static input_format: YUV400_U8 min_chn_0: 8 var_reci_chn_0: 0.3 }"


@pytest.fixture
def fed(digits: Case) -> tuple[Path, Path]:
    """uint8 pixels in a file, and the floats that the device makes of them in another."""
    with np.load(digits.data) as archive:
        (name,) = archive.files
        pixels = (archive[name][:8, 0] * 15).clip(0, 255).astype(np.uint8)
    np.save("fed.npy", pixels)
    floats = (pixels.astype(np.float16) - np.float16(8)) * np.float16(0.3)
    np.savez("floats.npz", **{name: floats[:, None].astype(np.float32)})
    Path("aipp.cfg").write_text(CONFIG, encoding="utf-8")
    return Path("fed.npy"), Path("floats.npz")


def test_simulation_sees_what_the_board_sees(digits: Case, fed: tuple[Path, Path]) -> None:
    base = ["simulate", "--model", str(digits.deploy), "--device", "a2"]
    assert main([*base, "--data", str(fed[0]), "--aipp", "aipp.cfg", "--save_path", "a"]) == 0
    assert main([*base, "--data", str(fed[1]), "--save_path", "b"]) == 0
    files = sorted(Path("a/000000").iterdir())
    assert files
    for file in files:
        assert np.array_equal(np.load(file), np.load(Path("b/000000") / file.name))


@pytest.mark.slow
def test_comparison_is_that_of_the_images_that_aipp_makes(digits: Case, fed: tuple[Path, Path]) -> None:
    found, expected = digits.compare(fed[0], aipp="aipp.cfg"), digits.compare(fed[1])
    assert [layer.differences for layer in found.layers] == [layer.differences for layer in expected.layers]
    assert found.settings["aipp"] == f"aipp.cfg ({aipp_digest('aipp.cfg')})" and expected.settings["aipp"] == "none"
    Path("other.cfg").write_text(CONFIG.replace("0.3", "0.2"), encoding="utf-8")  # a resumed run tells them apart
    assert aipp_digest("other.cfg") != aipp_digest("aipp.cfg")


def test_mistakes_end_with_one_error(digits: Case, fed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*digits.arguments[:5], "--data", str(fed[1]), "--aipp", "aipp.cfg"]
    Path("aipp.cfg").write_text("aipp_op { aipp_mode: dynamic }", encoding="utf-8")
    assert main(arguments) == 2 and "aipp_mode is dynamic" in capsys.readouterr().err
    source = ImageFolder.__new__(ImageFolder)  # any source: it is refused before it is read
    with pytest.raises(amct_onnx.SettingError, match="aipp"):
        digits.compare(source, aipp="aipp.cfg")
