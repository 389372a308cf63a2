"""A board's dumps, or those of ``simulate --dump layers``, against the simulated device, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.device.session import LAYERS, DeploySession
from amct_onnx.errors import DataError
from amct_onnx.files.read import read_model
from amct_onnx.verbs.compare.explain.dump_files import Dumped, feeds_of
from amct_onnx.verbs.compare.explain.dumped_tensors import (
    ACCUMULATOR,
    GRAPH_OUTPUT,
    INPUT,
    OUTPUT,
    Dumpable,
    DumpsOfFeed,
    Found,
    NotJudged,
    OtherType,
    dumpables,
    values_of,
)
from amct_onnx.verbs.compare.measure.statistics import SourceTensor, TensorStatistics
from amct_onnx.verbs.compare.present.figures import figure, percent
from amct_onnx.verbs.compare.report import BoardResult, BoardTensor, BoardTensorKind
from amct_onnx.verbs.simulate.dump_names import file_name, makers_of


@dataclass
class _Tensor:
    """One tensor of a layer over all feeds."""

    layer: str
    kind: BoardTensorKind
    lsb: float | None
    feeds: int = 0
    statistics: TensorStatistics = field(default_factory=TensorStatistics)

    @property
    def differs(self) -> bool:
        return not self.statistics.exact

    def within_a_step(self) -> bool:
        """Whether no value is off by more than one unit."""
        s = self.statistics
        return not s.not_finite and s.largest <= (self.lsb or 0.0) * (1 + 2.0**-12)


def compare_board(
    folder: str | os.PathLike[str],
    deploy_model: str | os.PathLike[str],
    device: str,
    units: Mapping[str, float | None],
    feeds: Iterable[Mapping[str, Array]],
    stopped: Callable[[], bool],
) -> BoardResult:
    """Compare every tensor that a dump holds.

    Args:
        folder: one folder of dumps for each feed, named by its number or in its order; or the dumps of one feed; or
            outputs of ais_bench. See ``dump_files``.
        deploy_model: that the board ran.
        device: profile that is simulated.
        units: of each layer's output.
        feeds: what the board ran, in the same order.
        stopped: whether to end with what was compared so far.

    Raises:
        DataError: The folder holds no dump of a layer or output, or a dump does not fit its tensor.
    """
    root = Path(folder)
    with DeploySession(deploy_model, device=device, collect=LAYERS) as session:
        board = _Board(session, units, read_model(deploy_model))
        dumps = feeds_of(root, board.outputs)
        number = compared = 0
        for number, feed in enumerate(feeds):
            if number in dumps and not stopped():
                board.compare(dumps[number](), feed, number)
                compared += 1
    if not compared:
        raise DataError(
            f"{root}: holds no dumps of the {number + 1 if dumps else 0} feeds of the data. Give one folder for each "
            "feed, named by its number, as amct_onnx simulate --dump layers writes them."
        )
    if not board.tensors and not board.not_judged:
        raise DataError(
            f"{root}: holds no dump of a layer or output. Name files op_type.op_name.output.0.npy, for example "
            f"Conv.{file_name(board.layers[0]) if board.layers else 'name'}.output.0.npy."
        )
    return _result(str(root), device, compared, board)


class _Board:
    """What is compared so far, over all feeds."""

    def __init__(self, session: DeploySession, units: Mapping[str, float | None], model: ir.Model) -> None:
        self._session, self._units = session, units
        self.layers = [f.name for f in session.facts]
        self.outputs = [o.name for o in session.get_outputs()]
        self._makers = makers_of(list(model.graph.outputs))
        self._nodes = [n.name for n in model.graph if n.name]
        self.tensors: dict[tuple[str, str], _Tensor] = {}
        self._reasons: dict[tuple[str, str], str] = {}

    @property
    def not_judged(self) -> tuple[str, ...]:
        """A sentence for each dumped tensor that could not be compared."""
        named = {k: where(*k) for k in self._reasons}
        return tuple(f"{named[k][0].upper()}{named[k][1:]}: {reason}." for k, reason in self._reasons.items())

    def compare(self, dumps: Iterable[Dumped], feed: Mapping[str, Array], number: int) -> None:
        """Compare the dumps of one feed."""
        try:
            outputs, taps = self._session.run_layers(feed)
        except Exception as error:  # onnxruntime's classes share no base
            raise DataError(f"Feed {number} cannot be run ({error}). Check its shape.") from error
        held = DumpsOfFeed(dumps, self._nodes)
        judged: set[Dumped] = set()
        unclear: dict[Dumped, tuple[Dumpable, NotJudged]] = {}
        for wanted in dumpables(taps, zip(self.outputs, outputs, strict=True), self._makers):
            for found in held.find(wanted):
                if wanted.kind == OUTPUT and found.dumped in judged:  # the layer's integer sum
                    continue
                try:
                    self._add(wanted, found)
                except NotJudged as error:
                    known = unclear.get(found.dumped)
                    if known is None or (isinstance(known[1], OtherType) and not isinstance(error, OtherType)):
                        unclear[found.dumped] = wanted, error
                else:
                    judged.add(found.dumped)
                    break
        for dumped, (wanted, reason) in unclear.items():
            if dumped not in judged and (wanted.name, wanted.kind) not in self.tensors:
                self._reasons.setdefault((wanted.name, wanted.kind), f"{reason} ({dumped.path.name})")

    def _add(self, wanted: Dumpable, found: Found) -> None:
        """Compare one dumped tensor and add it to those of the same name and kind."""
        other = values_of(found, wanted)
        lsb = self._units.get(wanted.name) if wanted.kind == OUTPUT else None
        if wanted.values.dtype.kind == "i":
            lsb = 1.0
        compared = SourceTensor(wanted.values).compare(other, lsb)
        if found.partial and not compared.exact:
            raise NotJudged("the dump may be the product without the bias, whose Add is not dumped")
        key = (wanted.name, wanted.kind)
        tensor = self.tensors.setdefault(key, _Tensor(wanted.name, wanted.kind, lsb))
        tensor.feeds += 1
        tensor.statistics.merge(compared)


def where(name: str, kind: str) -> str:
    """A tensor in a sentence."""
    return f"{kind} of '{name}'" if kind != GRAPH_OUTPUT else f"output '{name}'"


def _result(folder: str, device: str, compared: int, board: _Board) -> BoardResult:
    layers, tensors = board.layers, board.tensors
    order = {name: index for index, name in enumerate(layers)}
    kinds = (INPUT, ACCUMULATOR, OUTPUT, GRAPH_OUTPUT)
    ordered = sorted(tensors.values(), key=lambda t: (order.get(t.layer, len(order)), kinds.index(t.kind)))
    first = next((t for t in ordered if t.differs), None)
    wrong = _fault(ordered, tensors)
    chosen = wrong or first
    missing = tuple(n for n in layers if not any(name == n for name, _ in tensors))
    text = f"Board: all {len(ordered)} dumped tensors equal the simulated '{device}' in {counted(compared, 'feed')}."
    advice = ""
    if not ordered:
        text = "Board: no dumped tensor could be judged."
    if chosen is not None:
        text = f"{_difference(chosen, device, wrong is not None)} {_meaning(chosen, tensors, wrong is not None)}"
        advice = _advice(chosen.kind) if wrong else ""
    not_judged = board.not_judged
    if not_judged:
        told = counted(len(not_judged), "dumped tensor is", "dumped tensors are")
        text = f"{text} {told} not judged. {not_judged[0]}"
    return BoardResult(
        folder=folder,
        device=device,
        feeds=compared,
        tensors=tuple(
            BoardTensor(t.layer, t.kind, t.lsb, t.feeds, t.statistics.difference("board", t.lsb)) for t in ordered
        ),
        missing=missing,
        layer=chosen.layer if chosen is not None else "",
        tensor=chosen.kind if chosen is not None else "",
        fault=wrong is not None,
        text=text,
        advice=advice,
        not_judged=not_judged,
    )


def _difference(chosen: _Tensor, device: str, wrong: bool) -> str:
    s = chosen.statistics
    size = f"{figure(s.largest / chosen.lsb)} LSB" if chosen.lsb else figure(s.largest)
    often = ""
    if chosen.lsb:
        often = f", {percent((s.off_by_lsb + s.not_finite) / s.count, 2)} of the values by 1 LSB or more"
    what = "goes wrong" if wrong else "differs"
    return (
        f"Board: the {where(chosen.layer, chosen.kind)} is the first tensor that {what} from the simulated '{device}': "
        f"by up to {size}{often}."
    )


def _equal(tensors: Mapping[tuple[str, str], _Tensor], layer: str, kind: str) -> bool:
    found = tensors.get((layer, kind))
    return found is not None and not found.differs


def _fault(ordered: list[_Tensor], tensors: Mapping[tuple[str, str], _Tensor]) -> _Tensor | None:
    """The first tensor that is wrong whatever the device rounds.

    Integer sums of equal inputs are equal; a dequantizer of equal sums, and a quantizer before which nothing differs,
    err by no more than one step. Behind a tensor that differs, others may differ by more.
    """
    clean = True
    for t in ordered:
        if t.kind == ACCUMULATOR:
            wrong = t.differs and _equal(tensors, t.layer, INPUT)
        elif t.kind == OUTPUT:
            wrong = _equal(tensors, t.layer, ACCUMULATOR) and not t.within_a_step() and t.differs
        else:
            wrong = clean and t.kind == INPUT and not t.within_a_step()
        if wrong:
            return t
        clean = clean and not t.differs
    return None


def _meaning(t: _Tensor, tensors: Mapping[tuple[str, str], _Tensor], wrong: bool) -> str:
    if t.kind == ACCUMULATOR and _equal(tensors, t.layer, INPUT):
        return "Its input is equal, so its weights, bias or padding are others there."
    if t.kind == OUTPUT and _equal(tensors, t.layer, ACCUMULATOR):
        return "Its integer sum is equal, so it is the dequantization."
    if t.kind == INPUT:
        how = "more than the rounding of a quantizer" if wrong else "as the rounding of a quantizer may"
        return f"That is {how}; the layers before it are equal or not dumped."
    return "What goes into it is not dumped or differs within a step."


def _advice(kind: str) -> str:
    return {
        ACCUMULATOR: "Check that ATC compiled this deploy model, and that the layer runs in int8 on the product "
        "(some run Conv with few input channels in float16).",
        OUTPUT: "Check which profile the board follows (--device), and whether ATC fused the dequantizer.",
    }.get(kind, "Check that the board was fed the same data in the same layout and order, and the nodes before it.")
