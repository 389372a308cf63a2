"""Data and source are judged before the models: guessing, inputs out of range, what may be lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amct_onnx.errors import SettingError
from amct_onnx.verbs.compare.measure.accuracy import Accuracy
from amct_onnx.verbs.compare.present.found import Found
from amct_onnx.verbs.compare.present.verdict import verdict
from amct_onnx.verbs.compare.report import Metric, ModelEntry
from support.comparison_cases import DIGITS, Case, converted


def test_a_source_that_guesses_is_said_first(digits: Case) -> None:
    np.save(digits.labels, np.random.default_rng(0).permutation(np.load(digits.labels)))
    found = digits.compare(labels=digits.labels)
    assert found.verdict.level == "incomplete" and found.verdict.brief[0] == f"Why: {found.verdict.sentences[0]}"
    assert found.verdict.headline == "Incomplete: the source itself is no better than guessing."
    assert " right among 10 classes: the source itself is no better than guessing. " in found.verdict.sentences[0]


@pytest.mark.parametrize(("share", "level"), [(0.2, "incomplete"), (0.4, "noise")])
def test_a_source_with_hardly_more_right_answers_than_chance_is_no_all_clear(
    share: float, level: str, tmp_path: Path
) -> None:
    """A fifth of ten classes is doubted, two fifths may be a hard task."""
    digits = converted(DIGITS, tmp_path, samples=360)
    labels, random = np.load(digits.labels), np.random.default_rng(0)
    wrong = random.random(len(labels)) >= share
    labels[wrong] = (labels[wrong] + random.integers(2, 9, wrong.sum())) % 10
    np.save(digits.labels, labels)
    found = digits.compare(labels=digits.labels)
    assert found.verdict.level == level
    if level == "noise":
        return
    assert found.verdict.headline == "Incomplete: the source itself answers badly."
    assert "above chance by less than a quarter" in found.verdict.brief[0]
    assert found.verdict.brief[2].startswith("Besides: No fault found. fake-quant and deploy@a2 follow the source")
    assert digits.compare(labels=digits.labels, max_drop=50).verdict.level == "noise"  # the user knows


def test_pixels_up_to_255_for_a_model_of_0_to_1(digits: Case) -> None:
    with np.load(digits.data) as archive:
        feeds = {name: values * 255 for name, values in archive.items()}
    np.savez(digits.data, **feeds)
    found = digits.compare()
    assert found.verdict.level == "incomplete"
    assert found.verdict.headline == "Incomplete: the data look prepared otherwise than in training."
    assert "were pixels of 0 to 255 not scaled" in found.verdict.brief[0]
    assert "of the input lies outside the range of the first quantizer (" in found.verdict.sentences[1]
    assert "preprocessing" in found.verdict.sentences[1] and found.verdict.advice[1].startswith("Hold mean, std, ")


@pytest.mark.parametrize("sign", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_loss_beyond_max_drop_diverges(digits: Case, sign: int) -> None:
    """Of a metric and its opposite, one is lower in the models than in the source."""
    evaluator = digits.labels.with_name("evaluator.py")
    evaluator.write_text(
        "def evaluate(outputs, feeds, labels):\n"
        f"    return {{'size': {sign} * abs(next(iter(outputs.values()))).mean(axis=1).astype(float)}}\n",
        encoding="utf-8",
    )
    plain = digits.compare(evaluator=evaluator)
    source = plain.models[0].metrics[0].value
    lost = max(source - m.metrics[0].value for m in plain.models[1:])
    assert plain.verdict.level == "noise" and lost != 0
    assert digits.compare(evaluator=evaluator, max_drop=abs(lost)).verdict.level == "noise"
    if lost > 0:
        strict = digits.compare(evaluator=evaluator, max_drop=lost / 2)
        assert strict.verdict.level == "diverges" and " of size, limit" in strict.verdict.headline


def test_max_drop_of_no_metric_is_refused(digits: Case) -> None:
    """Nothing would be held against it, and every loss would pass."""
    with pytest.raises(SettingError, match="Give labels or an evaluator"):
        digits.compare(max_drop=1)
    for wrong in ("1", float("nan"), -1):
        with pytest.raises(SettingError, match=f"max_drop is {wrong}"):
            digits.compare(labels=digits.labels, max_drop=wrong)


def test_healthy_verdict_names_models_and_accuracy(digits: Case) -> None:
    found = digits.compare(labels=digits.labels)
    assert found.verdict.headline.startswith("No fault found. fake-quant and deploy@a2 follow the source as closely as")
    assert ": top-1 " in found.verdict.headline and " → " in found.verdict.headline


def test_few_samples_are_said_with_their_interval(digits: Case) -> None:
    """64 samples without a changed answer: 1 - (0.05 / 4)^(1 / 64) = 6.62 %; 437 bound the loss to 1 point."""
    found = digits.compare(labels=digits.labels)
    bounds = "(95 % intervals: fake-quant and deploy@a2 lose -6.62 to 6.62 points). About 440 would do."
    (told,) = found.verdict.brief
    assert told == f"64 samples are too few to tell a loss of 1 point of top-1 {bounds}"
    assert told in found.verdict.sentences
    for model in found.to_dict()["models"]:
        metric = model["metrics"][0]
        assert 0 < metric["low"] < metric["value"] <= metric["high"] <= 1
        loss = None if model["key"] == "source" else pytest.approx(0.0662, abs=1e-4)
        assert metric["most_loss"] == loss
    assert not digits.compare(labels=digits.labels, max_drop=7).verdict.brief
    (told,) = digits.compare(labels=digits.labels, max_drop=0.5).verdict.brief
    assert "too few to tell a loss of 0.5 points" in told and "About 880 would do" in told
    (told,) = digits.compare(labels=digits.labels, max_drop=0).verdict.brief
    assert told == (
        "max_drop 0 judges these 64 samples alone: on others fake-quant and deploy@a2 lose -6.62 to 6.62 points of "
        "top-1 (95 % intervals), and no number of samples shows that nothing is lost."
    )
    (told,) = digits.compare(labels=digits.labels, max_drop=1e-6).verdict.brief
    assert told.endswith("What was measured lies so near that limit that more samples hardly decide.")


@pytest.mark.parametrize(
    ("lost", "why", "todo"),
    [
        (
            3,
            "loses 3 of the source's right answers and gains 0 (p = 0.25), which chance explains.",
            "give more samples",
        ),
        (35, "loses 35 of the source's right answers and gains 0 (p = 5.8e-11).", "train longer with quantization"),
    ],
)
def test_cause_of_a_loss_is_what_figures_show(lost: int, why: str, todo: str) -> None:
    samples = 360
    shares = [Metric("top-1", (samples - n) / samples, samples - n, samples) for n in (0, lost)]
    models = [ModelEntry(k, "m.onnx", metrics=(m,)) for k, m in zip(("source", "deploy@a2"), shares, strict=True)]
    accuracy = {"deploy@a2": Accuracy(samples, {"top-1": samples - lost}, lost=lost)}
    found = verdict(Found(models, (), (), (), accuracy, max_drop=0.5))
    assert found.level == "diverges" and found.brief[0].endswith(why) and todo in found.brief[1]
