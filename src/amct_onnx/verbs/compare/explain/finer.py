"""The compared tensors, and beside them what every node gives that the models share: each node is then a piece.

The conversion keeps the names of the source's nodes. A node of the same name and operator gives the same float tensor
in both models; a quantizer pair of the source that stays is a pair of the same name. Tensors whose sizes differ, and
integers, sequences and optionals, are left out, and what chance may make where no output needs its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.files.model_bytes import model_bytes
from amct_onnx.graph.no_tensors import no_tensors
from amct_onnx.graph.random_nodes import numbers_of_chance
from amct_onnx.plan.factors import ANTI_QUANT
from amct_onnx.plan.ledger import CONVERTED
from amct_onnx.verbs.compare.job import FAKE_QUANT, Job, Tracked
from amct_onnx.verbs.compare.key import INPUT, LAYER, NODE, Key
from amct_onnx.verbs.compare.measure.other_sizes import names_sized_by_numbers
from amct_onnx.verbs.compare.measure.sessions import opened, tensors_of
from amct_onnx.verbs.compare.pairing import Paired

PAIR = "DequantizeLinear"


def finer(job: Job, layers: Sequence[Paired], stage: Callable[[str], None] = lambda what: None) -> Job:
    """The same job with more tensors, and models that show them.

    Args:
        job: with one device.
        layers: see ``make_job``.
        stage: is told what is being done.
    """
    models = {}
    for model in job.models:
        stage(f"reading {model} for its pieces")
        models[model] = opened(job.fake_quant if model == FAKE_QUANT else job.deploy)
    stage("reading the source for its pieces")
    source = opened(job.source)
    known = {t.source for t in job.tracked}
    made: list[Tracked] = []
    converted = [p.entry for p in layers if p.entry.verdict == CONVERTED]
    integer = {n for e in converted for n in (*e.deploy_nodes, *e.fake_quant_nodes)}
    by_chance = numbers_of_chance(source, [v for v in source.graph.outputs if v.name in job.outputs])
    for number, (name, others) in enumerate(_shared(source, models, integer, by_chance)):
        if name not in known:
            known.add(name)
            made.append(Tracked(Key(NODE, number), name, others, None))
    return shown_with(replace(job, tracked=(*job.tracked, *made)), source, models, stage)


def without(job: Job, found: Mapping[str, Mapping[str, Array]], source_key: str) -> Job:
    """The job without the tensors whose numbers cannot be held against each other; those at a layer are noted.

    A tensor whose size numbers decide stays: the piece of the source that begins there takes what a model has.

    Args:
        job: of one batch.
        found: its tensors, by model and name.
        source_key: key of the source in ``found``.
    """

    def arrays(t: Tracked) -> list[Array]:
        return [found[source_key][t.source], *(found[m][name] for m, name in t.others.items())]

    def alike(t: Tracked) -> bool:
        if t in resized and (t.source not in by_numbers or len({a.ndim for a in arrays(t)}) > 1):
            return False
        return t.key.kind != NODE or all(a.dtype.kind == "f" for a in arrays(t))

    resized = [t for t in job.tracked if len({a.size for a in arrays(t)}) > 1]
    by_numbers = names_sized_by_numbers(job.source) if resized else set()
    kept = tuple(replace(t, resized=t in resized) for t in job.tracked if alike(t))
    shown = {t.source for t in kept}
    unlike = tuple(
        (m, t.key, f"Tensor '{name}' has shape {_shape(found[m][name])} in {m}, {_shape(own)} in the source.")
        for t in job.tracked
        if t.key.kind in (INPUT, LAYER) and t.source not in by_numbers
        for own in (found[source_key][t.source],)
        for m, name in t.others.items()
        if found[m][name].size != own.size
    )
    job = replace(job, unlike=(*job.unlike, *unlike))
    return replace(job, tracked=kept, quantizers=tuple(q for q in job.quantizers if q.tensor in shown))


def _shape(values: Array) -> str:
    return f"[{', '.join(map(str, values.shape))}]"


def shown_with(
    job: Job, source: ir.Model, models: Mapping[str, ir.Model], stage: Callable[[str], None] = lambda what: None
) -> Job:
    """The job's models with all its tensors shown."""
    contents = {}
    for model in job.models:
        stage(f"showing the pieces of {model}")
        contents[model] = _with_outputs(models[model], [t.others[model] for t in job.tracked])
    stage("showing the pieces of the source")
    deploy = next(m for m in job.models if m != FAKE_QUANT)
    return replace(
        job,
        source=replace(job.source, content=_with_outputs(source, [t.source for t in job.tracked])),
        fake_quant=replace(job.fake_quant, content=contents[FAKE_QUANT]),
        deploy=replace(job.deploy, content=contents[deploy]),
    )


def _with_outputs(model: ir.Model, names: Sequence[str]) -> bytes:
    tensors, shown = tensors_of(model), {v.name for v in (*model.graph.outputs, *model.graph.inputs)}
    for name in dict.fromkeys(names):
        if name not in shown:  # an output may be an initializer, which no node makes
            model.graph.outputs.append(tensors[name])
    return model_bytes(model)


def _shared(
    source: ir.Model, models: Mapping[str, ir.Model], integer: set[str], by_chance: set[ir.Value]
) -> Iterator[tuple[str, dict[str, str]]]:
    """What each node of the source gives, and the name of it in every model."""
    nodes = {m: {n.name or "": n for n in model.graph} for m, model in models.items()}
    depends, left_out = depends_on_inputs(source), no_tensors(source.graph) | by_chance
    for node in source.graph:
        name = node.name or ""
        if not name or name in integer or node not in depends:
            continue
        same = {m: _counterpart(node, named) for m, named in nodes.items()}
        if any(n is None for n in same.values()):
            continue
        for index, value in enumerate(node.outputs):
            if not value.name or value in left_out:
                continue
            if value.dtype is not None and not value.dtype.is_floating_point():
                continue
            others = {m: _output(n, index) for m, n in same.items()}
            if len(others) == len(models) and all(others.values()):
                yield value.name, others


def _counterpart(node: ir.Node, named: Mapping[str, ir.Node]) -> ir.Node | None:
    name = node.name or ""
    if node.op_type == PAIR:
        return named.get(f"{name}{ANTI_QUANT}") or named.get(f"{name}{ANTI_QUANT}.fakedequant")
    same = named.get(name)
    return same if same is not None and same.op_type == node.op_type else None


def _output(node: ir.Node | None, index: int) -> str:
    return (node.outputs[index].name or "") if node is not None and index < len(node.outputs) else ""


def depends_on_inputs(model: ir.Model) -> set[ir.Node]:
    """The nodes of the graph whose result the data may change."""
    found: set[ir.Node] = set()
    inputs = {v for v in model.graph.inputs if v.const_value is None}
    for node in model.graph:
        if any(v is not None and (v in inputs or v.producer() in found) for v in node.inputs):
            found.add(node)
    return found
