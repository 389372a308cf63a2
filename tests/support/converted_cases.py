"""Reference cases and exporters' models by name: source, inputs, conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from amct_onnx.verbs.convert.convert_model import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.golden_models import FLOAT_CASES, GOLDENS, MODEL_CASES, MODELS, QAT_CASES, golden_qdq


def source_of(case: str, folder: Path) -> tuple[Path, bool]:
    """The Q/DQ model of a case, and whether onnxruntime can load it."""
    if case in MODEL_CASES:
        return MODELS / case / "model.onnx", True
    if case.startswith("qat/"):
        return GOLDENS / case / "qat.onnx", True
    return golden_qdq(case, folder)


def feeds_of(case: str) -> dict[str, np.ndarray]:
    """The stored inputs of a case."""
    folder = MODELS / case if case in MODEL_CASES else GOLDENS / case
    data = np.load(folder / ("io.npz" if case.startswith("qat/") else "inputs.npz"))
    source = folder / ("qat.onnx" if case.startswith("qat/") else "model.onnx")
    graph = onnx.load(str(source), load_external_data=False).graph
    constants = {t.name for t in graph.initializer}
    return {i.name: data[i.name] for i in graph.input if i.name not in constants}


def converted(case: str, folder: Path) -> tuple[Path, bool, ConversionReport]:
    """The source, whether onnxruntime can load it, and the report."""
    source, valid = source_of(case, folder)
    return source, valid, convert_qat_model(str(source), str(folder / "out" / "m"))


CASES = [*FLOAT_CASES, *(f"qat/{n}" for n in QAT_CASES), *MODEL_CASES]
