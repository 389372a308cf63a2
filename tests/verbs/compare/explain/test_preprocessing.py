"""Hints at another preparation of images or labels: each with its figures, none on healthy data."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import amct_onnx
from amct_onnx.verbs.compare.explain.preprocessing import MEAN, STD, _of_images, preprocessing_hints
from amct_onnx.verbs.compare.job import make_job
from amct_onnx.verbs.compare.measure.batch import Batch, Results, Runner
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support.comparison_cases import Case
from support.qdq_builder import Array, QdqBuilder

OUTSIDE_RANGE = " of the input lies outside the range of the first quantizer ("
CLASSES, SIZE, SAMPLES = 6, 8, 256
PREPARATIONS: dict[str, Callable[[Array], Array]] = {
    "unit": lambda v: v,
    "pixels": lambda v: v * 255,
    "halves": lambda v: (v - 0.5) / 0.5,
    "imagenet": lambda v: (v - channelled(MEAN)) / channelled(STD),
}


def channelled(values: object) -> Array:
    return np.asarray(values, np.float32).reshape(3, 1, 1)


@cache
def images() -> tuple[Array, Array]:
    """[samples, 3, height, width] in 0 to 1 with a gradient, and the class that the colour tells."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, CLASSES, SAMPLES)
    slope = rng.uniform(-0.15, 0.15, (SAMPLES, 1, 1, 1)) * np.linspace(-1, 1, SIZE)
    noise = rng.normal(0, 0.03, (SAMPLES, 3, SIZE, SIZE))
    made = colours()[labels][:, :, None, None] + slope + noise
    made[:, :, 0, 0], made[:, :, 0, 1] = 0, 1  # black and white stand in every photo
    return np.round(np.clip(made, 0, 1) * 255).astype(np.float32) / 255, labels


def colours() -> Array:
    """One for each class, none the mirror of another."""
    red, green, blue = [0.8, 0.2, 0.4, 0.7, 0.3, 0.5], [0.3, 0.7, 0.2, 0.6, 0.5, 0.2], [0.2, 0.4, 0.8, 0.3, 0.7, 0.3]
    return np.array([red, green, blue]).T


class Prepared:
    """A classifier by the nearest colour, trained on images of one preparation and layout."""

    def __init__(self, name: str, layout: str, folder: Path) -> None:
        self.prepare, self.layout = PREPARATIONS[name], layout
        x, _ = images()
        held = self.prepare(x)
        nearest = self.prepare(colours().astype(np.float32)[:, :, None, None])[:, :, 0, 0]
        weights = np.broadcast_to(2 * nearest[:, :, None, None] / SIZE**2, (CLASSES, 3, SIZE, SIZE)).astype(np.float32)
        g = QdqBuilder()
        shape: list[int | str] = ["N", 3, SIZE, SIZE] if layout == "NCHW" else ["N", SIZE, SIZE, 3]
        zero = np.int8(round(-128 - held.min() / ((held.max() - held.min()) / 255)))
        value = g.activation(g.input("image", shape), (held.max() - held.min()) / 255, zero)
        if layout == "NHWC":
            value = g.node("Transpose", [value], perm=[0, 3, 1, 2])
        scale = np.abs(weights).max() / 127
        kernel = g.weight(weights, scale, zero_point=np.int8(0), quantize=True)
        bias = g.constant(-(nearest**2).sum(axis=1).astype(np.float32))
        g.output(g.node("Flatten", [g.node("Conv", [value, kernel, bias])], output="scores"), shape=["N", CLASSES])
        source = g.save(folder)
        amct_onnx.convert_qat_model(source, folder / "m")
        self.job, self.layers = make_job(source, read_ledger(folder / "m"), ("reference",))
        self.runner = Runner(self.job)

    def hints(self, values: Array, labels: Array | None) -> tuple[str, ...]:
        """Of the images as they are fed."""
        size = 32
        batches = [
            Batch(i, {"image": values[s : s + size]}, size, None if labels is None else labels[s : s + size])
            for i, s in enumerate(range(0, len(values), size))
        ]
        results = Results()
        for batch in batches:
            results.merge(self.runner.run(batch))
        found = preprocessing_hints(self.job, self.layers, results, self.runner, batches[0], lambda: batches)
        return tuple(filter(None, (*found.prepared, found.outside, found.untried)))

    def laid(self, values: Array) -> Array:
        """Images in the model's layout."""
        return np.ascontiguousarray(values if self.layout == "NCHW" else np.moveaxis(values, 1, 3), np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Prepared]:
    amct_onnx.set_logging_level("error", "error")
    return cache(lambda name, layout: Prepared(name, layout, tmp_path_factory.mktemp(name)))


Models = Callable[[str, str], Prepared]


@pytest.mark.parametrize("name", PREPARATIONS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_healthy_data_give_no_hint(models: Models, name: str, layout: str) -> None:
    model, (x, labels) = models(name, layout), images()
    fed = model.laid(model.prepare(x))
    assert model.hints(fed, labels) == model.hints(fed, None) == ()
    rng = np.random.default_rng(0)
    assert model.hints(fed, rng.permutation(labels)) == ()  # labels in another order: nothing of this explains it
    assert model.hints(rng.permutation(fed, axis=0), None) == ()


def _reshaped(v: Array) -> Array:
    return np.moveaxis(v, 1, 3).reshape(v.shape)


WRONG: tuple[tuple[str, str, Callable[[Array], Array], str], ...] = (
    ("unit", "NCHW", lambda v: v * 255, "divided by 255"),
    ("unit", "NCHW", lambda v: v * 16, "divided by 16, "),
    ("imagenet", "NCHW", lambda v: v * 255, "normalised with the mean and std of ImageNet"),
    ("pixels", "NCHW", lambda v: v, "times 255"),
    ("imagenet", "NCHW", lambda v: v, "normalised with the mean and std of ImageNet"),
    ("halves", "NHWC", lambda v: v, "as (pixel - 0.5) / 0.5"),
    ("unit", "NCHW", PREPARATIONS["halves"], "with (pixel - 0.5) / 0.5 taken back"),
    ("unit", "NCHW", lambda v: v[:, ::-1], "with the channels in the other order, "),
    ("imagenet", "NHWC", lambda v: PREPARATIONS["imagenet"](v)[:, ::-1], "with the channels in the other order"),
    ("unit", "NCHW", _reshaped, "with the numbers read in the other layout"),
)


@pytest.mark.parametrize(("name", "layout", "wrong", "words"), WRONG)
def test_wrong_preparation_is_named_with_its_figures(
    models: Models, name: str, layout: str, wrong: Callable[[Array], Array], words: str
) -> None:
    model, (x, labels) = models(name, layout), images()
    told, *beside = model.hints(model.laid(wrong(x)), labels)
    assert all(OUTSIDE_RANGE in more for more in beside)
    assert f" {words}" in told and told.startswith("Of the first 32 samples ") and " as they are (p = " in told
    assert "(p = " in told


def test_a_usual_normalisation_is_taken_back() -> None:
    x, _ = images()
    fed = PREPARATIONS["imagenet"](x)
    (trial,) = (t for t in _of_images(Batch(0, {"image": fed}, SAMPLES, None)) if "ImageNet taken back" in t.text)
    assert trial.images is not None
    np.testing.assert_allclose(trial.images(fed), x, atol=1e-6)  # two roundings of float32
    assert not any("taken back" in t.text for t in _of_images(Batch(0, {"image": 2 * fed}, SAMPLES, None)))


@pytest.mark.parametrize(
    ("name", "layout", "wrong", "words"),
    [
        ("unit", "NCHW", lambda v: v * 255, "goes from 0 to 255, the first quantizer covers"),
        ("imagenet", "NHWC", lambda v: v * 255, "were pixels of 0 to 255 not scaled"),
        ("unit", "NCHW", lambda v: v * 16, ": is the scale that of training? The largest number is 16 times what"),
        (
            "imagenet",
            "NHWC",
            lambda v: 12 * v - 6,
            "outside the range of the first quantizer (-2.1",
        ),
        (
            "unit",
            "NCHW",
            lambda v: np.where(v > np.quantile(v, 0.9), np.inf, v),
            "10 % of the input, some of it infinite, lies outside the range of the first quantizer (",
        ),
        (
            "unit",
            "NCHW",
            lambda v: np.where(v > np.quantile(v, 0.9), -np.inf, v),
            "of the input, some of it infinite, lies outside the range of the first quantizer (",
        ),
        ("pixels", "NCHW", lambda v: v, "so that it fills 1.0 of 256 steps"),
        ("imagenet", "NCHW", lambda v: v, "goes from 0 to 1, the first quantizer covers -2.1"),
        ("unit", "NCHW", _reshaped, "look like NHWC that was reshaped to NCHW: neighbouring pixels differ by "),
    ],
)
def test_ranges_and_neighbours_tell_without_labels(
    models: Models, name: str, layout: str, wrong: Callable[[Array], Array], words: str
) -> None:
    model, (x, _) = models(name, layout), images()
    told = model.hints(model.laid(wrong(x)), None)
    assert words in told[0] and all(OUTSIDE_RANGE in more for more in told[1:])


@pytest.mark.parametrize(("shift", "words"), [(1, "with labels less 1"), (-1, "with labels plus 1")])
def test_labels_shifted_by_one(models: Models, shift: int, words: str) -> None:
    model, (x, labels) = models("unit", "NCHW"), images()
    (told,) = model.hints(x, (labels + shift) % CLASSES)
    assert words in told


def test_shifted_labels_are_said_before_all_else(digits: Case) -> None:
    np.save(digits.labels, (np.load(digits.labels) + 1) % 10)
    found = digits.compare(labels=digits.labels)
    assert found.verdict.level == "incomplete" and found.verdict.brief[0] == f"Why: {found.verdict.sentences[0]}"
    assert found.verdict.headline == "Incomplete: the data look prepared otherwise than in training."
    assert "right with labels less 1, 0 as they are" in found.verdict.brief[0]
    assert found.verdict.brief[0].endswith("do the labels count from 1?")
    assert "the source itself is no better than guessing. " in found.verdict.sentences[1]


@pytest.mark.parametrize(("second", "words"), [("return", "yields nothing"), ("raise OSError('gone')", "gone")])
def test_data_that_can_be_read_once_still_give_a_report(digits: Case, second: str, words: str) -> None:
    np.save(digits.labels, np.random.default_rng(0).permutation(np.load(digits.labels)))
    file = digits.data.with_name("feeds.py")
    file.write_text(
        "import numpy as np\n"
        "calls = []\n"
        "def feeds():\n"
        "    calls.append(0)\n"
        f"    if len(calls) > 1: {second}\n"
        f"    x, y = np.load({str(digits.data)!r})['input'], np.load({str(digits.labels)!r})\n"
        "    yield {'input': x}, y\n",
        encoding="utf-8",
    )
    found = digits.compare(file)
    (told,) = (s for s in found.verdict.sentences if s.startswith("Whether the data were prepared in another way was"))
    assert found.complete and words in told
