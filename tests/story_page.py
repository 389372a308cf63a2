"""Write docs/story.md: accuracy from training to device, a fault that is found, and what the bias costs.

Run it as ``python tests/story_page.py`` in an environment that holds the package and its dev extra.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import amct_onnx
from amct_onnx.verbs.compare.report import CompareReport
from exporters_page import EXPORTERS
from support.comparison_cases import THREADS
from support.golden_models import MODELS

PAGE = Path(__file__).parent.parent / "docs" / "story.md"
DEVICES = ("a2", "ascend950")
COLUMNS = ("source", "fake-quant", *(f"deploy@{d}" for d in DEVICES))
STORIES = (
    "torchfx_digitsnet_i8sym_op13",
    "torchfx_digitsnet_u8_bnqat_op13",
    "torcheager_digitsnet_u8_bnfold_op13",
    "torchconverted_digitsnet_u8_op13",
    "pt2e_digitsnet_xnnpack_dynamo18",
    "ort_digitsnet_qdq_u8_pc",
    "tfmot_digitsnet_op13",
    "tf1contrib_digitsnet_op13",
    "modelopt_digitsnet_int8_op13",
    "brevitas_digitsnet_pc_qcdq_op13",
    "torchfx_digitstf_u8_op17",
    "modelopt_digitstf_int8_op17_nofold",
    "torchfx_digitsae_i8sym_op13",
    "pt2e_digitsae_xnnpack_dynamo18",
)
FAULTY, FAULTY_LAYER = "torchfx_digitsnet_u8_bnqat_op13", "/b1.0/Conv"
EVALUATOR = """
def evaluate(outputs, feeds, labels):
    (output,) = outputs.values()
    return {"mse": ((output - labels) ** 2).reshape(len(labels), -1).mean(axis=1)}
"""


def accuracy_of(report: CompareReport) -> dict[str, str]:
    """Right answers or error of each model that was run."""
    found = {}
    for model in report.models:
        metric = model.metrics[0]
        found[model.key] = f"{metric.right}" if metric.total else f"{metric.value:.6f}"
    return found


def trained(name: str) -> str:
    """What the exporter measured in its training framework, in the form of ``accuracy_of``."""
    meta = json.loads((MODELS / name / "meta.json").read_text(encoding="utf-8"))
    value = meta.get("torch_eval_of_fakequant_model") or meta["accuracy"]["value"]
    return f"{value * 360:.0f}" if meta["accuracy"]["metric"] == "top1" else f"{value:.6f}"


def compared(name: str, folder: Path, source: Path | None = None) -> CompareReport:
    """Compare what stands converted under the model's name over its test set."""
    with np.load(MODELS / name / "testset.npz") as data:
        np.savez(folder / "x.npz", x=data["x"])
        np.save(folder / "y.npy", data["y"])
        classifies = data["y"].ndim == 1
    (folder / "mse.py").write_text(EVALUATOR, encoding="utf-8")
    return amct_onnx.compare(
        source or MODELS / name / "model.onnx",
        folder / name,
        folder / "x.npz",
        labels=folder / "y.npy",
        evaluator=None if classifies else folder / "mse.py",
        devices=DEVICES,
        threads=THREADS,
    )


def row(name: str, folder: Path) -> str:
    """Convert and compare one model: a row of the table."""
    converted = amct_onnx.convert_qat_model(MODELS / name / "model.onnx", folder / name)
    report = compared(name, folder)
    figures = accuracy_of(report)
    cells = [
        EXPORTERS[name.split("_")[0]],
        name,
        f"{len(converted.converted)} of {len(converted.layers)}",
        trained(name),
        *(figures[c] for c in COLUMNS),
        report.verdict.level,
    ]
    return "| " + " | ".join(cells) + " |"


def spoil(deploy: Path) -> None:
    """Double the dequantization scale of one layer's first channel."""
    model = onnx.load(str(deploy))
    (tensor,) = [t for t in model.graph.initializer if t.name == f"{FAULTY_LAYER}.dequant.param"]
    bits = numpy_helper.to_array(tensor).copy()
    scale = (bits[:1].astype(np.uint32).view(np.float32) * np.float32(2)).view(np.uint32)
    bits[:1] = scale
    tensor.CopyFrom(numpy_helper.from_array(bits, tensor.name))
    onnx.save(model, str(deploy))


def fault(folder: Path) -> str:
    """What compare says of a model with a wrong scale."""
    converted = amct_onnx.convert_qat_model(MODELS / FAULTY / "model.onnx", folder / FAULTY)
    spoil(Path(converted.deploy_model))
    report = compared(FAULTY, folder)
    lines = [f"> {report.verdict.headline}"]
    lines += [f"> {d.text} {d.advice}".rstrip() for d in report.divergences if d.layer == FAULTY_LAYER][:1]
    return "\n>\n".join(lines)


def bias(folder: Path) -> str:
    """Source and fake-quant model before and after the source's biases were rounded."""
    rows = []
    for name in ("torchfx_digitsnet_i8sym_op13", "torchfx_digitsnet_u8_bnqat_op13", "torchfx_digitstf_u8_op17"):
        source = MODELS / name / "model.onnx"
        adapted = folder / "adapted.onnx"
        amct_onnx.quantize_bias(source, adapted)
        cells = [name]
        for model in (source, adapted):
            amct_onnx.convert_qat_model(model, folder / name)
            difference = compared(name, folder, model).outputs[0].differences[0]
            cells += [f"{difference.share_lsb or 0:.2%}", f"{difference.max_lsb or 0:.3g}"]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


HEAD = """# From training to the device: the digits models

Made by `python tests/story_page.py`; nothing here is written by hand. Each row is one network, trained with quantizers
(or quantized after training) by a real exporter, converted with default settings, and compared by
[`amct_onnx compare`](compare.md) over the 360 samples of its test set. Figures are right answers of 360, or the mean
squared error of an autoencoder. "trained" is what the exporter's framework measured. `a2` is the arithmetic of 910B, A3
and 310B, `ascend950` that of 950.

"""
FAULT_HEAD = f"""
`noise`: no fault was found, and the models differ as quantization explains. The layers that stay float, and why, are in
[exporters.md](exporters.md#layers-that-stay-float).

## A fault, found

In the deploy model of `{FAULTY}` the dequantization scale of one channel of layer `{FAULTY_LAYER}` was
doubled. `compare` says:

"""
BIAS_HEAD = """

## What the bias costs

Output of the fake-quant model against the source: share of the values that are off by one step of the output's
quantizer or more, and the largest difference in such steps; then the same against the source that `amct_onnx bias`
wrote. Exact ties are left: the source divides by a scale where AscendQuant multiplies by its reciprocal.

| model | off, source as trained | largest | off, biases rounded | largest |
|---|---|---|---|---|
"""


def make_page(folder: Path) -> str:
    """The text of the page."""
    columns = ["exporter", "model", "int8 layers", "trained", *COLUMNS, "verdict"]
    lines = [" | ".join(["", *columns, ""]).strip(), "|" + "---|" * len(columns), *(row(n, folder) for n in STORIES)]
    return HEAD + "\n".join(lines) + "\n" + FAULT_HEAD + fault(folder) + BIAS_HEAD + bias(folder) + "\n"


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        PAGE.write_text(make_page(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
