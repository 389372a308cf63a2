"""What is compared, as one value that a worker on another machine can run: models, names, units."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from amct_onnx.device.chips import find_profile
from amct_onnx.errors import ModelFileError, UnsupportedModelError
from amct_onnx.files.read import read_model
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.float16_rounding import holds_float16, round_float16_nodes
from amct_onnx.graph.no_tensors import is_sequence
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.random_nodes import numbers_of_chance
from amct_onnx.normalise.opset import NEWEST_OPSET
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.ledger import CONVERTED
from amct_onnx.plan.next_quantizers import Passage, passage_of
from amct_onnx.plan.output_scales import own_scale
from amct_onnx.plan.settings import DROP
from amct_onnx.verbs.compare.float_model import FLOAT, FloatModel, read_float_model
from amct_onnx.verbs.compare.key import INPUT, LAYER, OUTPUT, Key
from amct_onnx.verbs.compare.measure.evaluator import EvaluatorCode
from amct_onnx.verbs.compare.measure.sessions import ModelBytes, open_reference, show, tensors_of
from amct_onnx.verbs.compare.pairing import Paired, check_source, pair_layers
from amct_onnx.verbs.compare.report import AS_GIVEN, NORMALISED, Form, UnitOf
from amct_onnx.verbs.convert.read_ledger import Ledger

SOURCE, FAKE_QUANT = "source", "fake-quant"
DEPLOY = "deploy"


@dataclass(frozen=True)
class Tracked:
    """One tensor of the source and its counterparts.

    Attributes:
        key: which tensor it is.
        source: name in the source.
        others: model key -> name in that model.
        lsb: unit, or None.
        shift: what the source's integers exceed the other models' by (a uint8 output became int8), else 0.
        passage: what the quantizers behind a layer let through; None of other tensors, and where no quantizer follows.
        resized: whether a model has another number of elements, which numbers decide: a piece of the source that begins
            here takes any.
    """

    key: Key
    source: str
    others: dict[str, str]
    lsb: float | None
    shift: int = 0
    passage: Passage | None = None
    resized: bool = False


@dataclass(frozen=True)
class Quantized:
    """The quantizer in front of a converted layer, as it stands in the source: float tensor and factors."""

    layer: int
    tensor: str
    scale: float
    offset: int

    @property
    def low(self) -> float:
        """Smallest float that does not saturate: rounding takes -128.5 to -128 (half to even)."""
        return (-128.5 - self.offset) * self.scale

    @property
    def high(self) -> float:
        """Smallest float beyond it that does: rounding takes 127.5 to 128."""
        return (127.5 - self.offset) * self.scale


@dataclass(frozen=True)
class Job:
    """Everything that a batch needs to be compared.

    Attributes:
        source, fake_quant, deploy: models with all tracked tensors shown.
        form: of the source, ``as given`` or ``normalised``.
        devices: one deploy session each.
        tracked: tensors compared.
        quantizers: of the source's layers.
        layer_names: in the ledger's order, by which a deploy session's counts are found.
        outputs: names of the graph outputs.
        threads: of each session: another number may add float32 in another order.
        evaluator: the user's own metrics.
        float_model: the float model before quantization, which is measured and judges nothing; None without one.
        other_sizes: ``fake-quant`` or ``deploy``, and which of its outputs has another size: it is not measured.
        unlike: tensors at a layer that have another size in a model (its key), and the two shapes: neither is measured.
        left_out: ``fake-quant`` or ``deploy``, and why that model cannot be run: it is not measured.
        sequences: names of the graph outputs that are sequences of tensors, which are not tracked.
    """

    source: ModelBytes
    fake_quant: ModelBytes
    deploy: ModelBytes
    form: Form
    devices: tuple[str, ...]
    tracked: tuple[Tracked, ...]
    quantizers: tuple[Quantized, ...]
    layer_names: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int = 1
    evaluator: EvaluatorCode = EvaluatorCode()
    float_model: FloatModel | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    sequences: tuple[str, ...] = ()
    other_sizes: tuple[tuple[str, str], ...] = ()
    unlike: tuple[tuple[str, Key, str], ...] = ()
    key: str = field(default="", compare=False)

    @property
    def models(self) -> tuple[str, ...]:
        """Keys of the models that are compared with the source."""
        return tuple(m for m in self.asked if not self.cannot_run(m))

    @property
    def asked(self) -> tuple[str, ...]:
        """Keys of all models but the source, also of those that cannot be run."""
        return (FAKE_QUANT, *(deploy_key(d) for d in self.devices))

    def cannot_run(self, model: str) -> str:
        """Why a model cannot be run; "" when it can."""
        return dict(self.left_out).get(FAKE_QUANT if model == FAKE_QUANT else DEPLOY, "")

    @property
    def read(self) -> tuple[ModelBytes, ...]:
        """All models that are read."""
        held = (self.float_model.model,) if self.float_model is not None else ()
        return (self.source, self.fake_quant, self.deploy, *held)

    @property
    def answering(self) -> tuple[str, ...]:
        """Keys of the models whose answers are kept: the source, those that are compared with it, the float model."""
        return (SOURCE, *self.models, *((FLOAT,) if self.float_model is not None else ()))


def deploy_key(device: str) -> str:
    """The key of a deploy session."""
    return f"deploy@{device}"


def make_job(
    model_file: str | os.PathLike[str],
    ledger: Ledger,
    devices: Sequence[str],
    *,
    threads: int = 1,
    evaluator: EvaluatorCode | None = None,
    float_model: str | os.PathLike[str] | None = None,
    canonical: ir.Model | None = None,
    outputs_only: bool = False,
    left_out: Mapping[str, str] | None = None,
    instead: Mapping[str, ir.Model] | None = None,
) -> tuple[Job, tuple[Paired, ...]]:
    """Read the models, pair their layers, and choose what is tracked.

    ``canonical`` is the normalised source, where it is there already; ``outputs_only`` tracks no layer, for a model
    that can show none any more; ``left_out`` is that of ``Job``, and tracks no layer either; ``instead`` are models in
    the place of files.

    Raises:
        AmctError: A model that cannot be read or run, a ledger of another source, an unknown device.
    """
    evaluator = evaluator or EvaluatorCode()
    devices = tuple(dict.fromkeys(find_profile(device).name for device in devices))
    held = left_out or {}
    given = {name: _copy(model) for name, model in (instead or {}).items()}
    fake_quant = None if FAKE_QUANT in held else given.get(FAKE_QUANT) or read_model(ledger.fake_quant_model)
    deploy = None if DEPLOY in held else given.get(DEPLOY) or read_model(ledger.deploy_model)
    layers = pair_layers(ledger, fake_quant, deploy)
    wanted = [n for p in layers for n in (p.source.input, p.source.output) if n]
    canonical = normalise(read_model(model_file)) if canonical is None else _copy(canonical)
    source, form, units = _source(model_file, canonical, wanted, ledger)
    outputs = _output_names(source.content)[: len(units)]
    names = {} if fake_quant is None else {FAKE_QUANT: [v.name or "" for v in fake_quant.graph.outputs]}
    if deploy is not None:
        names |= {deploy_key(d): [v.name or "" for v in deploy.graph.outputs] for d in devices}
    if any(len(n) != len(units) for n in names.values()):
        raise ModelFileError(f"{ledger.path}: the models beside it have other outputs than the source. Convert again.")
    tracked = [
        Tracked(Key(OUTPUT, index), outputs[index], {k: n[index] for k, n in names.items()}, lsb, shift)
        for index, (lsb, shift) in enumerate(units)
        if not is_sequence(canonical.graph.outputs[index])
    ]
    by_chance = {v.name for v in numbers_of_chance(canonical, canonical.graph.outputs[: len(units)])}
    shown = [] if outputs_only or held else [n for n in source.shown if n not in by_chance]
    tracked += _tracked_layers(layers, shown, devices, _passages(canonical, layers))
    fake_bytes = _shown(fake_quant, ledger.fake_quant_model, tracked, FAKE_QUANT)
    deploy_bytes = _shown(deploy, ledger.deploy_model, tracked, deploy_key(devices[0]) if devices else "")
    floating = read_float_model(float_model, read_model(model_file), outputs) if float_model is not None else None
    digest = hashlib.sha256()
    for content in (source, fake_bytes, deploy_bytes, *((floating.model,) if floating is not None else ())):
        digest.update(content.content)
    digest.update(repr((devices, threads, evaluator.text)).encode())
    job = Job(
        source=source,
        fake_quant=fake_bytes,
        deploy=deploy_bytes,
        form=form,
        devices=devices,
        tracked=_unique(tracked),
        quantizers=_quantizers(layers, shown),
        layer_names=tuple(p.entry.name for p in layers),
        outputs=tuple(outputs),
        sequences=tuple(n for n, v in zip(outputs, canonical.graph.outputs, strict=False) if is_sequence(v)),
        threads=threads,
        evaluator=evaluator,
        float_model=floating,
        left_out=tuple(held.items()),
        key=digest.hexdigest(),
    )
    return job, layers


def _shown(model: ir.Model | None, path: Path, tracked: Sequence[Tracked], key: str) -> ModelBytes:
    """A model with what is tracked of it; without bytes when it is left out."""
    if model is None:
        return ModelBytes(str(path), b"", ())
    return show(model, path, [t.others[key] for t in tracked if key in t.others])


def _passages(canonical: ir.Model, layers: Sequence[Paired]) -> dict[str, Passage | None]:
    """What the quantizers behind each layer let through, by the name of its output."""
    constants, tensors = ConstantEvaluator(opset_of(canonical)), tensors_of(canonical)
    names = (p.source.output for p in layers if p.source.output in tensors)
    return {name: passage_of(tensors[name], constants) for name in names}


def _tracked_layers(
    layers: Sequence[Paired], shown: Sequence[str], devices: Sequence[str], passages: Mapping[str, Passage | None]
) -> Iterator[Tracked]:
    """What each layer makes, and what its quantizer reads, where all models show it."""
    for index, pair in enumerate(layers):
        if pair.fake_quant is None or pair.deploy is None:
            continue
        ends = {FAKE_QUANT: pair.fake_quant, **{deploy_key(d): pair.deploy for d in devices}}
        if pair.source.output in shown:
            others = {k: e.output for k, e in ends.items()}
            passage = passages.get(pair.source.output)
            yield Tracked(Key(LAYER, index), pair.source.output, others, layer_lsb(pair)[0], passage=passage)
        if pair.source.input in shown:
            others = {k: e.input for k, e in ends.items()}
            yield Tracked(Key(INPUT, index), pair.source.input, others, pair.entry.scale_d)


def _quantizers(layers: Sequence[Paired], shown: Sequence[str]) -> tuple[Quantized, ...]:
    """Those of the converted layers that all models show."""
    return tuple(
        Quantized(index, pair.source.input, pair.entry.scale_d, pair.entry.offset_d)
        for index, pair in enumerate(layers)
        if pair.fake_quant is not None and pair.deploy is not None and pair.source.input in shown
        if pair.entry.scale_d is not None and pair.entry.offset_d is not None
    )


def input_keys(job: Job, layers: Sequence[Paired]) -> dict[int, Key]:
    """The key under which the input of each layer's quantizer is compared; see ``_unique``."""
    first: dict[tuple[str, tuple[str, ...]], Key] = {}
    for t in job.tracked:
        first.setdefault((t.source, tuple(t.others.values())), t.key)
    found = {}
    for index, pair in enumerate(layers):
        if pair.fake_quant is None or pair.deploy is None:
            continue
        others = (pair.fake_quant.input, *(pair.deploy.input for _ in job.devices))
        key = first.get((pair.source.input, others))
        if key is not None:
            found[index] = key
    return found


def layer_lsb(pair: Paired) -> tuple[float | None, UnitOf | None]:
    """The unit of a layer's output, and what it is the step of."""
    entry = pair.entry
    if entry.output_scale is not None:
        return entry.output_scale, "next quantizer"
    if entry.read_scale is None or not entry.scale_w:
        return None, None
    return float(np.float32(entry.read_scale) * np.float32(max(entry.scale_w))), "accumulator"


def step_of(pair: Paired) -> float | None:
    """The step of the quantizer behind a layer, in which people count its errors; None where none follows."""
    return pair.entry.output_scale


def units_of(layers: Sequence[Paired]) -> dict[str, float | None]:
    """The unit of each layer's output, by name."""
    return {pair.entry.name: layer_lsb(pair)[0] for pair in layers}


def _unique(tracked: Sequence[Tracked]) -> tuple[Tracked, ...]:
    """An input that is another layer's output, or that several layers read, is compared once (see ``input_keys``)."""
    first: dict[tuple[str, tuple[str, ...]], Tracked] = {}
    kept = []
    for t in tracked:
        pair = (t.source, tuple(t.others.values()))
        if t.key.kind == INPUT and pair in first:
            continue
        first.setdefault(pair, t)
        kept.append(t)
    return tuple(kept)


def _copy(model: ir.Model) -> ir.Model:
    """A copy that knows from which files the model was read."""
    copied = model.clone()
    copied.meta.update(model.meta)
    return copied


def _source(
    model_file: str | os.PathLike[str], canonical: ir.Model, wanted: Sequence[str], ledger: Ledger
) -> tuple[ModelBytes, Form, list[tuple[float | None, int]]]:
    """The source as it is given, or normalised when ONNX Runtime or its dialect do not show every layer's tensors."""
    given = read_model(model_file)
    # as in the fake-quant model; what becomes int8 reads dequantized values, which integers do not round
    layers = {e.name for e in ledger.layers if e.verdict == CONVERTED}
    if holds_float16(canonical) and opset_of(canonical) == NEWEST_OPSET:
        # ATC has no later opset, and ONNX no earlier one with quantizers of float16; no operator means something else
        canonical.opset_imports[""] = NEWEST_OPSET + 1
    # a name that rounding gives may be that of another tensor of the normalised source
    in_given = tensors_of(given).keys()
    for model in (given, canonical):
        round_float16_nodes(model, layers)
    held = {
        v.name or "" for n in ir.traversal.RecursiveGraphIterator(canonical.graph) for v in (*n.inputs, *n.outputs) if v
    }
    other = [n for n in wanted if n not in held]
    if other:
        raise ModelFileError(
            f"{ledger.path}: tells of a tensor '{other[0]}', which {os.fspath(model_file)} does not hold. Convert that "
            "source again."
        )
    check_source(ledger, canonical)
    units = [_output_unit(v, ConstantEvaluator(opset_of(canonical))) for v in canonical.graph.outputs]
    if ledger.origin is not None and ledger.origin.residual_quantizers == DROP:
        # the pairs that were dropped are known by their names in the normalised source
        shown = show(canonical, model_file, wanted)
        with suppress(UnsupportedModelError):
            open_reference(shown, 1)
            return shown, NORMALISED, units
    tensors = tensors_of(canonical)
    if in_given >= {n for n in wanted if n in tensors}:
        shown = show(given, model_file, wanted)
        try:
            open_reference(shown, 1)
        except UnsupportedModelError:
            pass
        else:
            return shown, AS_GIVEN, units
    return show(canonical, model_file, wanted), NORMALISED, units


def _output_unit(value: ir.Value, constants: ConstantEvaluator) -> tuple[float | None, int]:
    node = value.producer()
    if node is not None and node.op_type == "QuantizeLinear":
        # integers: one step is 1; uint8 became int8 by subtracting 128
        return 1.0, 128 if value.dtype == ir.DataType.UINT8 else 0
    return own_scale(value, constants), 0


def _output_names(content: bytes) -> list[str]:
    import onnx

    return [o.name for o in onnx.load_model_from_string(content).graph.output]
