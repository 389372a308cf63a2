"""Changed answers: those of the models run by hand, kept across batches, interruptions and the state file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

import amct_onnx
from amct_onnx.common.console import print_parts
from amct_onnx.errors import DataError
from amct_onnx.verbs.compare.job import make_job
from amct_onnx.verbs.compare.measure.accuracy import MAX_FLIPS, Flips, find_flips, ranks
from amct_onnx.verbs.compare.measure.state_file import checksum, read_state
from amct_onnx.verbs.compare.present.html.write_html import render_html
from amct_onnx.verbs.compare.present.screen import parts
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support import comparison_cases as cases
from support.comparison_cases import Case
from support.interrupted_runs import interrupt_at


def test_changed_answers_survive_an_interruption(
    digits: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases.scale_dequantizer(digits.deploy, digits.layers[4], 3)
    archive, labels = np.load(digits.data), np.load(digits.labels)
    feeds = {name: archive[name] for name in archive.files}
    source = ort.InferenceSession(digits.source, amct_onnx.AMCT_SO).run(None, feeds)[0].argmax(axis=1)
    deploy = amct_onnx.DeploySession(digits.deploy, device="a2").run(None, feeds)[0].argmax(axis=1)
    changed = np.flatnonzero(source != deploy).tolist()
    assert changed and changed[-1] > 9
    options: dict[str, Any] = {"labels": digits.labels, "batch_size": 9}
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1)
        part = digits.compare(**options)
    assert not part.complete and part.flips is not None
    assert [s.index for s in part.flips.samples] == [i for i in changed if i < 18]
    kept = digits.state.read_text(encoding="utf-8")
    job, _ = make_job(digits.source, read_ledger(digits.prefix), ("a2",))
    for damage in DAMAGES:
        content = json.loads(kept)
        damage(content["flips"])
        content["checksum"] = checksum({k: v for k, v in content.items() if k != "checksum"})
        digits.state.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(DataError, match=r"damaged \(\$\.flips"):
            read_state(digits.state, job, content["settings"])
    digits.state.write_text(kept, encoding="utf-8")
    found = digits.compare(**options, resume=True)
    assert found.flips is not None and found.flips.count == len(changed)
    for sample, index in zip(found.flips.samples, changed, strict=True):
        answers = {"source": source[index], "fake-quant": source[index], "deploy@a2": deploy[index]}
        assert (sample.index, sample.label, sample.answers) == (index, labels[index], answers)
    print_parts(partial(parts, found), sys.stdout)
    first = changed[0]
    assert f": sample {first} (label {labels[first]}): source {source[first]}" in capsys.readouterr().out
    few = [text for text in found.verdict.sentences if "too few" in text]
    assert few and few[0] not in found.verdict.brief  # the fault comes first
    page = render_html(found.to_dict())
    assert f'<th scope="row" class="n">{changed[-1]}</th>' in page and "Changed answers" in page


DAMAGES: tuple[Callable[[dict[str, Any]], Any], ...] = (
    lambda flips: flips.update(count=0),
    lambda flips: flips.update(count=19),
    lambda flips: flips["first"].append(flips["first"][0]),
    lambda flips: flips["first"][-1].__setitem__(0, 18),
    lambda flips: flips["first"][0][2].pop(),
    lambda flips: flips["first"][0].__setitem__(2, [1, 1, 1]),
)


@given(answers=st.lists(st.tuples(*[st.integers(0, 2)] * 3), max_size=250), cut=st.integers(0, 250))
def test_batches_together_give_the_first_hundred(answers: list[tuple[int, int, int]], cut: int) -> None:
    """The third model's answer is told, and changes nothing."""
    rows = np.array(answers, np.int64).reshape(-1, 3)
    scores = {f"m{model}": np.eye(3)[rows[:, model]] for model in range(3)}
    found = Flips()
    for part in (slice(0, cut), slice(cut, None)):
        length = len(rows[: part.start])
        found.merge(find_flips({m: v[part] for m, v in scores.items()}, rows[part, 0], 1), length)
    changed = [i for i, (one, other, _) in enumerate(answers) if one != other]
    assert found.count == len(changed)
    assert [(f.index, f.answers) for f in found.first] == [(i, answers[i]) for i in changed[:MAX_FLIPS]]


def test_labels_that_count_from_1_are_told() -> None:
    scores = np.zeros((3, 10), np.float32)
    with pytest.raises(DataError, match=r"classes 0 to 9 \(labels that count from 1 need 1 less\)\. Corr"):
        ranks(scores, np.array([1, 10, 4]))
    with pytest.raises(DataError, match="A label is 10; the output has the classes 0 to 9. Correct it."):
        ranks(scores, np.array([0, 10, 4]))
