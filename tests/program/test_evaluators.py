"""The evaluators in examples/: mIoU and mAP of small models, held against figures counted otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amct_onnx
from amct_onnx.cli import main
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.job import make_job
from amct_onnx.verbs.compare.measure.evaluator import Evaluator, EvaluatorCode
from amct_onnx.verbs.compare.measure.records import packed, record_text, unpacked
from amct_onnx.verbs.compare.measure.state_file import checksum, read_state
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support.interrupted_runs import figures, interrupt_at
from support.qdq_builder import Array, QdqBuilder

EXAMPLES = Path(__file__).parents[2] / "examples"
SAMPLES, CLASSES, SIZE, CELL = 24, 3, 32, 8


@pytest.fixture(autouse=True)
def quiet() -> None:
    amct_onnx.set_logging_level("error", "error")


def command(folder: Path, graph: QdqBuilder, images: Array, labels: Array, example: str) -> list[str]:
    """Convert the model, write the data, and return the words that a user types."""
    source = graph.save(folder)
    amct_onnx.convert_qat_model(source, folder / "m")
    np.savez(folder / "data.npz", image=images.astype(np.float32))
    np.save(folder / "labels.npy", labels)
    words = ["compare", "--model", source, "--save_path", folder / "m", "--data", folder / "data.npz", "--threads", "1"]
    words += ["--labels", folder / "labels.npy", "--evaluator", EXAMPLES / example, "--batch_size", "5"]
    return [str(w) for w in words]


def report(words: list[str], file: Path) -> dict[str, Any]:
    assert main([*words, "--json_report", str(file)]) == 0
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def first_layer(image: str, kernel: Array, **extra: Any) -> tuple[QdqBuilder, str]:
    """Q/DQ -> convolution of pixels in 0 to 1 with weights of 0 and 1."""
    g = QdqBuilder()
    value = g.activation(g.input(image, ["N", CLASSES, SIZE, SIZE]), 1 / 255, np.int8(-128))
    return g, g.node("Conv", [value, g.weight(kernel, 1 / 127, zero_point=np.int8(0), quantize=True)], **extra)


def test_segmentation_gives_miou(tmp_path: Path) -> None:
    """Channel c scores class c; the IoU is counted by a confusion matrix here."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES - 1, (SAMPLES, SIZE, SIZE))  # the last class does not occur
    images = (
        0.2
        + 0.5 * (np.arange(CLASSES)[:, None, None] == labels[:, None])
        + rng.normal(0, 0.2, (SAMPLES, 3, SIZE, SIZE))
    )
    images[:, 2] = 0
    labels[:, :2] = 255
    g, scores = first_layer("image", np.eye(CLASSES, dtype=np.float32)[:, :, None, None])
    g.output(scores, shape=["N", CLASSES, SIZE, SIZE])
    words = command(tmp_path, g, np.clip(images, 0, 1), labels, "evaluate_segmentation.py")
    content = report([*words, "--max_drop", "0.01"], tmp_path / "r.json")
    grid = np.clip(np.round(np.clip(images, 0, 1).astype(np.float32) * 255), 0, 255)  # what the quantizer makes of it
    found = grid.argmax(axis=1)[labels != 255]
    counted = np.bincount(labels[labels != 255] * CLASSES + found, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    either = counted.sum(axis=0) + counted.sum(axis=1) - np.diag(counted)
    expected = (np.diag(counted)[either > 0] / either[either > 0]).mean()
    (metric,) = content["models"][0]["metrics"]
    assert metric["name"] == "mIoU" and 0.5 < expected < 0.95
    assert metric["value"] == pytest.approx(expected, rel=1e-12)  # ratios of equal integers


def detector() -> QdqBuilder:
    """Each cell of 8 x 8 pixels is a box; the mean of channel c in it scores class c."""
    kernel = np.zeros((4 + CLASSES, CLASSES, CELL, CELL), np.float32)
    for number in range(CLASSES):
        kernel[4 + number, number] = 1
    g, sums = first_layer("image", kernel, strides=[CELL, CELL])
    means = g.node("Mul", [sums, g.constant(np.asarray(1 / CELL**2, np.float32))])
    side = SIZE // CELL
    boxes = np.zeros((1, 4 + CLASSES, side, side), np.float32)
    boxes[:, 0] = CELL * (np.arange(side) + 0.5)
    boxes[:, 1] = boxes[:, 0].transpose(0, 2, 1)
    boxes[:, 2:4] = CELL
    shape = g.constant(np.array([0, 4 + CLASSES, side * side], np.int64))
    g.output(g.node("Reshape", [g.node("Add", [means, g.constant(boxes)]), shape]), shape=["N", 4 + CLASSES, side**2])
    return g


def scenes() -> tuple[Array, Array]:
    """Two objects in each image, each filling a cell; objects of class 1 look like class 2: all of them are missed."""
    rng = np.random.default_rng(1)
    images, labels = np.zeros((SAMPLES, CLASSES, SIZE, SIZE)), np.full((SAMPLES, 3, 5), -1.0, np.float32)
    for image, rows in zip(images, labels, strict=True):
        for row, place in zip(rows, rng.choice(16, 2, replace=False), strict=False):
            kind, top, left = rng.integers(0, 2), CELL * (place // 4), CELL * (place % 4)
            image[2 * kind, top : top + CELL, left : left + CELL] = rng.uniform(0.6, 0.9)
            row[:] = kind, left, top, CELL, CELL
    return images, labels


def test_detection_gives_map_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the two classes that occur one is found without a mistake, the other never: mAP is a half."""
    words = [*command(tmp_path, detector(), *scenes(), "evaluate_detection.py"), "--max_drop", "0.01"]
    content = report(words, tmp_path / "whole.json")
    assert "Accumulating" not in capsys.readouterr().out
    for model in content["models"]:
        assert [(m["name"], m["value"], m["right"]) for m in model["metrics"]] == [
            ("mAP", 0.5, None),
            ("mAP50", 0.5, None),
        ]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        assert main(words) == 130
    (state,) = tmp_path.glob("m_compare_state*.json")
    kept = state.read_text(encoding="utf-8")
    text = (EXAMPLES / "evaluate_detection.py").read_text(encoding="utf-8")
    job, _ = make_job(
        tmp_path / "source.onnx", read_ledger(tmp_path / "m"), ("a2",), evaluator=EvaluatorCode(text, words[-5])
    )
    for records in ("x", packed(["1"] * 14), packed(["{"] * 15)):
        held = json.loads(kept)
        held["accuracy"][1][1]["records"] = records
        held["checksum"] = checksum({k: v for k, v in held.items() if k != "checksum"})
        state.write_text(json.dumps(held), encoding="utf-8")
        with pytest.raises(DataError, match=r"damaged \(\$\.accuracy\[1\]\[1\]\.records"):
            read_state(state, job, held["settings"])
    state.write_text(kept, encoding="utf-8")
    assert main([*words, "--resume", "--json_report", str(tmp_path / "rest.json")]) == 0
    assert figures(tmp_path / "rest.json") == figures(tmp_path / "whole.json")


SCORE = "def score(records):\n    return {'n': len(records)}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def collect(o, f, l):\n    return [1, 2]\n", r"collect\(\) without score\(\)"),
        (SCORE, r"score\(\) without collect\(\)"),
        (SCORE + "def collect(o, f, l):\n    return [1]\n", "1 record for 2 samples"),
        (SCORE + "def collect(o, f, l):\n    return [1, float('nan')]\n", "returns something else than records"),
        (SCORE + "def collect(o, f, l):\n    return [1, object()]\n", "a object in a record"),
        (SCORE + "def collect(o, f, l):\n    return 3\n", "returns something else than records"),
        (SCORE + "def collect(o, f, l):\n    raise KeyError('oops')\n", "oops"),
        (SCORE.replace("len", "float") + "def collect(o, f, l):\n    return [1, 2]\n", r"score\(\) failed"),
    ],
)
def test_mistakes_in_collect_and_score_are_named(text: str, words: str) -> None:
    with pytest.raises(DataError, match=f"own.py.*{words}"):
        evaluator = Evaluator(text, "own.py")
        evaluator.score(evaluator.collect({}, {}, None, 2), 2)


def test_records_keep_their_numbers() -> None:
    texts = [record_text({"boxes": np.array([[1.5, 0.1]], np.float32), "n": np.int64(3), "a,b": "é\n"}), "[]"]
    assert unpacked(packed(texts)) == texts and unpacked("") == []
    assert json.loads(texts[0]) == {"boxes": [[1.5, float(np.float32(0.1))]], "n": 3, "a,b": "é\n"}
