"""Feeds of files: what a shape that does not fit is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.open_data import open_data
from amct_onnx.errors import DataError


@pytest.mark.parametrize(
    ("held", "wanted", "words"),
    [
        ((4, 8, 9, 3), ("N", 3, 8, 9), r"Move its axes \(NHWC to NCHW: x.transpose\(0, 3, 1, 2\)\); do not reshape it"),
        ((4, 3, 8, 9), (1, 8, 9, 3), r"Move its axes \(NCHW to NHWC: x.transpose\(0, 2, 3, 1\)\); do not reshape it"),
        ((4, 8, 9), ("N", 3, 8, 9), "Reshape it"),
        ((4, 5, 8, 9), ("N", 3, 8, 9), "Reshape it"),
    ],
)
def test_images_in_the_other_layout_are_to_be_transposed(
    tmp_path: Path, held: tuple[int, ...], wanted: tuple[int | str, ...], words: str
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(held, np.float32))
    spec = InputSpec("x", wanted, np.dtype(np.float32))
    with pytest.raises(DataError, match=words):
        list(open_data(tmp_path / "x.npy", [spec]).labelled())
