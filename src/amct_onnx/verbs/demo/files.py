"""The model and the data of the demo, which the package holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from amct_onnx.files.new_file import write_new_file


@dataclass(frozen=True)
class DemoFiles:
    """Where the files of the demo are.

    Attributes:
        model: a QAT model of torch's FX exporter: handwritten digits, float32 [N, 1, 8, 8] -> scores [N, 10].
        data: .npz of 360 test images ``x`` and their labels ``y``.
    """

    model: Path
    data: Path


def demo_files(folder: str | os.PathLike[str]) -> DemoFiles:
    """Write the model and the data into a folder, where they stay when they are there already.

    Raises:
        OutputError: Other files of these names are there, or the folder cannot be written to.
    """
    held = resources.files("amct_onnx") / "verbs" / "demo" / "digitsnet"
    files = DemoFiles(Path(folder, "model_qat.onnx"), Path(folder, "testset.npz"))
    for path, name in ((files.model, "model.onnx"), (files.data, "testset.npz")):
        write_new_file(path, (held / name).read_bytes(), "--save_path")
    return files
