"""Convert a real QAT model (trained with torch.ao on handwritten digits) and compare its accuracy before and after."""

from __future__ import annotations

from pathlib import Path

import amct_onnx  # isort: skip  # before onnxruntime: switches its telemetry off
import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
FILES = amct_onnx.demo_files(HERE / "out")
"""The model and the test images, which the package holds."""


def scores(model: str | Path, images: np.ndarray) -> np.ndarray:
    """Run a model under settings that do not change Q/DQ results."""
    session = ort.InferenceSession(str(model), amct_onnx.AMCT_SO)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def main() -> None:
    """Convert, print the verdict on every layer, then both accuracies."""
    report = amct_onnx.convert_qat_model(FILES.model, HERE / "out" / "digitsnet", HERE / "out" / "digitsnet_record.txt")
    Console().print(report)
    with np.load(FILES.data) as data:
        images, labels = data["x"], data["y"]
    before, after = scores(FILES.model, images), scores(report.fake_quant_model, images)
    table = Table("Model", "Right", "Top-1", "Largest difference", "Largest score", title=f"{len(labels)} test images")
    for name, result in (("source", before), ("fake-quant", after)):
        right = int((result.argmax(axis=1) == labels).sum())
        difference = float(np.abs(result - before).max())
        table.add_row(
            name, str(right), f"{right / len(labels):.1%}", f"{difference:.3g}", f"{np.abs(result).max():.3g}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
