"""doctor: run a Q/DQ model under several ONNX Runtime settings and compare with an exact integer reference."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from amct_onnx.common.arrays import Array
from amct_onnx.common.input_shape import parse_input_shape
from amct_onnx.common.onnxruntime_session import open_session
from amct_onnx.common.paths import check_paths
from amct_onnx.common.versions import library_versions
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.input_spec import InputSpec, specs_of
from amct_onnx.data.open_data import open_data
from amct_onnx.data.source import AnyData, name_of
from amct_onnx.errors import DataError, NoQuantizerError, SettingError, UnsupportedModelError
from amct_onnx.files.compose import INLINE_LIMIT, weight_bytes
from amct_onnx.files.read import read_model
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.float_types import float_type_of
from amct_onnx.graph.layers import LAYER_KINDS
from amct_onnx.graph.model_kinds import kind_of
from amct_onnx.graph.quantizer_nodes import integer_type, is_op
from amct_onnx.normalise.foreign_quantizers.rewrite import only_normalised_runs
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.quantizers import RANGES, raw_factors
from amct_onnx.verbs.doctor.cpu import cpu_facts
from amct_onnx.verbs.doctor.exact_reference import make_exact
from amct_onnx.verbs.doctor.output_errors import measure, result_of
from amct_onnx.verbs.doctor.plain_quantizers import write_plain_quantizers
from amct_onnx.verbs.doctor.report import DoctorReport
from amct_onnx.verbs.doctor.sample_model import sample_model
from amct_onnx.verbs.doctor.settings import PINNED, SETTINGS

FLOAT16 = ir.DataType.FLOAT16
BUILT_IN = "built-in"
BATCH = 8
"""Random samples in a feed when the model leaves the first dimension free."""
SEED = 7


def doctor(
    model: str | os.PathLike[str] | None = None,
    data: AnyData | None = None,
    *,
    input_shape: str = "",
    input_type: str = "",
    images: ImageOptions | None = None,
    aipp: str | os.PathLike[str] | None = None,
    feeds: int = 8,
    progress: Callable[[int, int | None], None] | None = None,
) -> DoctorReport:
    """Show which ONNX Runtime settings give a Q/DQ model's true numbers on this CPU.

    Args:
        model: a model with QuantizeLinear/DequantizeLinear; None for a small built-in u8s8 model.
        data: as ``open_data`` takes it; random numbers over the range of the input's quantizer when
            None.
        input_shape: ATC's notation, ``"input:1,3,224,224"``, for dimensions that the model leaves free.
        input_type: as ``open_data`` takes it.
        images: as ``open_data`` takes it.
        aipp: as ``open_data`` takes it.
        feeds: how many feeds are run at most.
        progress: called with the number of sessions done and of all.

    Raises:
        AmctError: One of its subclasses: no such file, no model, no quantizers, or those of a domain that ONNX Runtime
            does not know; data that does not fit.
    """
    check_paths("model", "aipp", model=model, aipp=aipp)
    if feeds < 1:
        raise SettingError(f"--feeds is {feeds}. Give at least 1.")
    content: str | bytes = sample_model().SerializeToString() if model is None else os.fspath(model)
    source = ir.from_proto(sample_model()) if model is None else read_model(str(content))
    _check_quantizers(source, os.fspath(model or BUILT_IN))
    source = write_plain_quantizers(normalise(source))
    _check(source)
    ranges, steps = _input_ranges(source), _output_steps(source)
    as_written = source.clone()
    exact = make_exact(source)
    reference = _reference_session(exact.model)
    inputs = specs_of(reference)
    if data is None:
        stream = _random_feeds(inputs, parse_input_shape(input_shape, DataError), ranges, feeds)
    else:
        stream = iter(open_data(data, inputs, input_shape=input_shape, input_type=input_type, images=images, aipp=aipp))
    batches = list(islice(stream, feeds))
    names = [o.name for o in reference.get_outputs()]
    total = len(SETTINGS) + 2
    step = progress or (lambda done, of: None)
    expected = _expected(reference, names, batches)
    del reference
    step(1, total)
    # of the canonical form: a model of QLinear operators has int8 kernels under every setting
    floor = measure(_serialized(as_written), PINNED, names, batches, expected, steps)
    del as_written
    step(2, total)
    errors = {}
    for index, setting in enumerate(SETTINGS):
        errors[setting] = measure(content, setting, names, batches, expected, steps)
        step(index + 3, total)
    return DoctorReport(
        model=BUILT_IN if model is None else os.fspath(model),
        data=f"random (seed {SEED})" if data is None else name_of(data),
        feeds=len(batches),
        values=sum(np.asarray(v).size for outputs in expected for v in outputs),
        cpu=cpu_facts(),
        versions={name: version for name, version in library_versions().items() if name != "machine"},
        exact_layers=len(exact.exact),
        float_layers=exact.as_written,
        can_saturate=exact.can_saturate,
        settings=tuple(result_of(setting, errors[setting], floor) for setting in SETTINGS),
    )


def _expected(reference: ort.InferenceSession, names: list[str], batches: list[dict[str, Array]]) -> list[list[Any]]:
    """The exact outputs of each feed."""
    try:
        return [reference.run(names, feed) for feed in batches]
    except Exception as error:  # onnxruntime's classes share no base
        raise DataError(f"ONNX Runtime cannot run the model on this data ({error}). Check the shapes.") from error


def _check_quantizers(model: ir.Model, name: str) -> None:
    """Refuse a model without quantizers, or with quantizers that ONNX Runtime does not know."""
    nodes = [*nodes_of(model), *(n for function in model.functions.values() for n in function)]
    foreign = Counter(f"{n.domain}::{n.op_type}" for n in nodes if only_normalised_runs(n))
    if foreign:
        counts = ", ".join(f"{count} x {kind}" for kind, count in foreign.items())
        raise UnsupportedModelError(
            f"{name}: holds {counts}, which ONNX Runtime cannot run under any setting. Convert the model and run its "
            "fake-quant model under AMCT_SO; `amct_onnx compare` compares it with what these quantizers should compute."
        )
    if not any(is_op(n, "QuantizeLinear", "DequantizeLinear") or "Linear" in n.op_type for n in nodes):
        kind, node = kind_of(nodes)
        if kind:
            raise NoQuantizerError(
                f"{name}: is a {kind} (see its node '{node}'). Give the QAT model that it was made of."
            )
        raise NoQuantizerError(
            f"{name}: holds no QuantizeLinear or DequantizeLinear, so that no setting can change its int8 numbers. "
            "Give the QAT model."
        )


def _check(model: ir.Model) -> None:
    """Refuse a model for which no exact reference can be made and run."""
    half = next(
        (n for n in nodes_of(model) if n.op_type in LAYER_KINDS and float_type_of(n.outputs[0]) == FLOAT16), None
    )
    if half is not None:
        raise UnsupportedModelError(
            f"Node '{half.name}' ({half.op_type}) computes in float16. On a CPU ONNX Runtime runs it in float32 and "
            "rounds where casts happen to remain, so that its results depend on the graph around it and no reference "
            "is exact. Give the float32 export of the model."
        )
    if weight_bytes(model) > INLINE_LIMIT:
        raise UnsupportedModelError(
            f"The model holds {weight_bytes(model)} bytes of weights; more than {INLINE_LIMIT} cannot be "
            "examined in one session. Give a part of it."
        )


def _serialized(model: ir.Model) -> bytes:
    """The model with all its weights."""
    ir.external_data.load_to_model(model)
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def _reference_session(model: ir.Model) -> ort.InferenceSession:
    try:
        return open_session(_serialized(model), PINNED.options())
    except Exception as error:  # onnxruntime's classes share no base
        raise UnsupportedModelError(
            f"ONNX Runtime refuses the model ({error}). Check that it runs in ONNX Runtime at all."
        ) from error


def _input_ranges(model: ir.Model) -> dict[str, tuple[float, float]]:
    """Smallest and largest float that the quantizer at a graph input can hold."""
    constants = ConstantEvaluator(model.opset_imports.get("", 18))
    ranges = {}
    for value in model.graph.inputs:
        for node in (use.node for use in value.uses()):
            if not is_op(node, "QuantizeLinear") or integer_type(node, constants) not in RANGES:
                continue
            scale, zero, _ = raw_factors(node, constants)
            low, high, shift, _ = RANGES[integer_type(node, constants)]
            bounds = [float(((n + shift - zero) * scale).max()) for n in (low, high)]
            ranges[value.name or ""] = (bounds[0], bounds[1])
    return ranges


def _output_steps(model: ir.Model) -> dict[str, float]:
    """The scale of each output that a DequantizeLinear gives."""
    constants = ConstantEvaluator(model.opset_imports.get("", 18))
    steps = {}
    for value in model.graph.outputs:
        node = value.producer()
        if node is not None and is_op(node, "DequantizeLinear"):
            steps[value.name or ""] = float(raw_factors(node, constants)[0].max())
    return steps


def _random_feeds(
    inputs: tuple[InputSpec, ...],
    shapes: dict[str, tuple[int, ...]],
    ranges: dict[str, tuple[float, float]],
    feeds: int,
) -> Iterator[dict[str, Array]]:
    """Uniform over the quantizer's range (normal without one); integers and booleans 0 or 1."""
    generator = np.random.default_rng(SEED)
    for _ in range(feeds):
        feed = {}
        for spec in inputs:
            shape = shapes.get(spec.name) or _free_batch(spec)
            if spec.dtype.kind != "f":
                values: Array = generator.integers(0, 2, shape)
            elif spec.name in ranges:
                values = generator.uniform(*ranges[spec.name], shape)
            else:
                values = generator.standard_normal(shape)
            feed[spec.name] = values.astype(spec.dtype)
        yield feed


def _free_batch(spec: InputSpec) -> tuple[int, ...]:
    shape = tuple(BATCH if i == 0 and not isinstance(n, int) else n for i, n in enumerate(spec.shape))
    if not all(isinstance(n, int) for n in shape):
        raise DataError(
            f"The model leaves dimensions of '{spec.name}' free ({spec.shape_text}). Give "
            f'--input_shape "{spec.name}:..." or --data.'
        )
    return shape
