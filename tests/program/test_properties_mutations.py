"""Models that are changed without changing their meaning convert alike, to the bit; broken ones give one error."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amct_onnx.errors import AmctError
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from support.deploy_evaluator import Evaluator, run
from support.fault_injection import visible
from support.golden_models import MODELS
from support.graph_mutations import BREAK, KEEP_MEANING, Mutation
from support.integer_inputs import integer_inputs
from support.random_graphs import cases
from targets import loads

pytestmark = pytest.mark.usefixtures("one_process")

REAL = (
    "brevitas_biasnet_i8_qcdq_op13",
    "ort_mlp3d_qdq_u8_pc",
    "torchfx_miscB_i8sym_op13",
    "torchfx_mlp3d_u8_op13",
)
"""Small, of three exporters."""
Model = tuple[onnx.ModelProto, dict[str, np.ndarray]]


def settings_of(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


@cache
def real(name: str) -> Model:
    folder = MODELS / name
    with np.load(folder / "inputs.npz") as arrays:
        return onnx.load(folder / "model.onnx"), dict(arrays)


drawn_or_real = st.one_of(cases().map(lambda case: (case.model, case.feeds)), st.sampled_from(REAL).map(real))
chances = st.randoms(use_true_random=False)


def converted(model: onnx.ModelProto, folder: Path, *, external: bool = False) -> ConversionReport:
    folder.mkdir()
    path = folder / "source.onnx"
    options: dict[str, Any] = {"location": "weights", "size_threshold": 0} if external else {}
    onnx.save(model, path, save_as_external_data=external, **options)
    return convert_qat_model(path, folder / "m")


def plan_of(report: ConversionReport) -> dict[str, tuple[Any, ...]]:
    """The verdict on each layer with its factors; only names of tensors may differ."""
    return {
        e.name: (e.op_type, e.verdict, e.reason, e.granularity, e.scale_d, e.offset_d, e.scale_w, e.output_scale)
        for e in report.layers
    }


def outputs_of(report: ConversionReport, feeds: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    return [Evaluator(report.deploy_model).run(feeds), run(report.fake_quant_model, feeds)]


def changed(source: Model, mutations: Sequence[Mutation], chance: random.Random) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(source[0].SerializeToString())
    for mutation in mutations:
        mutation(model, chance)
    return model


def convert_alike(source: Model, other_model: onnx.ModelProto, *, external: bool) -> None:
    model, feeds = source
    with tempfile.TemporaryDirectory() as name:
        try:
            report = converted(model, Path(name) / "original")
        except AmctError as error:
            with pytest.raises(type(error)):
                converted(other_model, Path(name) / "changed", external=external)
            return
        other = converted(other_model, Path(name) / "changed", external=external)
        assert plan_of(other) == plan_of(report)
        assert_equal_outputs(outputs_of(report, feeds), outputs_of(other, feeds))


def assert_equal_outputs(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> None:
    for expected, found in zip(one, other, strict=True):
        assert expected.keys() == found.keys()
        for output, values in expected.items():
            assert values.dtype == found[output].dtype
            np.testing.assert_array_equal(found[output], values, err_msg=output)


def convert_with_integer_inputs(source: Model, chance: Any) -> bool:
    """Whether the model has an input that may be integers; then it converts alike, and gives the same numbers."""
    made = integer_inputs(*source, chance)
    if made is None:
        return False
    changed_model, integers, floats = made
    with tempfile.TemporaryDirectory() as name:
        report = converted(source[0], Path(name) / "original")
        other = converted(changed_model, Path(name) / "changed")
        assert plan_of(other) == plan_of(report)
        assert_equal_outputs(outputs_of(report, floats), outputs_of(other, integers))
    return True


def convert_broken(model: onnx.ModelProto) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "out"
        try:
            report = converted(model, folder)
        except AmctError as error:
            assert str(error).strip() and "\n" not in str(error)
            assert visible(folder).keys() == {"source.onnx"}
            return
        assert not loads(folder / "source.onnx") or loads(report.fake_quant_model)


def lists_of(mutations: tuple[Mutation, ...], most: int) -> st.SearchStrategy[list[Mutation]]:
    return st.lists(st.sampled_from(mutations), min_size=1, max_size=most)


@settings_of(8)
@given(drawn_or_real, lists_of(KEEP_MEANING, 12), chances, st.booleans())
def test_changes_that_keep_the_meaning(source: Model, made: list[Mutation], chance: Any, external: bool) -> None:
    convert_alike(source, changed(source, made, chance), external=external)


def test_every_change_in_two_models() -> None:
    """Models that have all that the changes look for: each change alters one of them at least."""
    idle = set(KEEP_MEANING)
    for name in (REAL[0], REAL[2]):
        source = model, _ = real(name)
        chance = random.Random(0)
        for mutation in KEEP_MEANING:
            before, model = model, changed((model, {}), [mutation], chance)
            idle -= {mutation} if model != before else set()
        convert_alike(source, changed((model, {}), KEEP_MEANING * 4, chance), external=True)
    assert not idle, idle


@pytest.mark.parametrize("name", [REAL[0], REAL[3]])
def test_integer_inputs_of_a_real_model(name: str) -> None:
    assert convert_with_integer_inputs(real(name), random.Random(0))


@settings_of(8)
@given(drawn_or_real, chances)
def test_integer_inputs(source: Model, chance: Any) -> None:
    convert_with_integer_inputs(source, chance)


@settings_of(25)
@given(drawn_or_real, lists_of(BREAK, 3), chances)
def test_broken_graphs(source: Model, made: list[Mutation], chance: Any) -> None:
    convert_broken(changed(source, made, chance))


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(drawn_or_real, lists_of(KEEP_MEANING, 12), chances, st.booleans())
def test_many_changes_that_keep_the_meaning(source: Model, made: list[Mutation], chance: Any, external: bool) -> None:
    convert_alike(source, changed(source, made, chance), external=external)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(drawn_or_real, chances)
def test_many_integer_inputs(source: Model, chance: Any) -> None:
    convert_with_integer_inputs(source, chance)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(drawn_or_real, lists_of(BREAK, 3), chances)
def test_many_broken_graphs(source: Model, made: list[Mutation], chance: Any) -> None:
    convert_broken(changed(source, made, chance))
