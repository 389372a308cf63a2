"""Convert a real QAT model (trained with torch.ao on handwritten digits) and compare its accuracy before and after."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

import amct_onnx
from amct_onnx.screen import print_report

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "digitsnet" / "model.onnx"


def scores(model: str | Path, images: np.ndarray) -> np.ndarray:
    """Run a model under settings that do not change Q/DQ results."""
    session = ort.InferenceSession(str(model), amct_onnx.AMCT_SO)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def main() -> None:
    """Convert, print the verdict on every layer, then both accuracies."""
    report = amct_onnx.convert_qat_model(SOURCE, HERE / "out" / "digitsnet", HERE / "out" / "digitsnet_record.txt")
    print_report(report, sys.stdout)
    with np.load(HERE / "digitsnet" / "testset.npz") as data:
        images, labels = data["x"], data["y"]
    before, after = scores(SOURCE, images), scores(report.fake_quant_model, images)
    for name, result in (("source", before), ("fake-quant", after)):
        right = int((result.argmax(axis=1) == labels).sum())
        print(f"{name:>10}: {right} of {len(labels)} right ({right / len(labels):.1%})")
    print(f"largest difference of a score: {np.abs(before - after).max():.3g} of {np.abs(before).max():.3g}")


if __name__ == "__main__":
    main()
