"""What a comparison found, as frozen values; ``to_dict`` is the JSON file, docs/compare.md its schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from amct_onnx.common.shown_report import ShownReport
from amct_onnx.graph.reasons import Reason
from amct_onnx.plan.ledger import BiasError, Granularity, LayerVerdict, ResidualEntry
from amct_onnx.verbs.compare.causes import NOISE_CAUSES, Cause, Side
from amct_onnx.verbs.compare.layer_details import ChannelErrors, GraphNode, InputHistogram
from amct_onnx.verbs.convert.cost import Cost

Level = Literal["equal", "noise", "incomplete", "diverges"]
EQUAL, NOISE, INCOMPLETE, DIVERGES = get_args(Level)
"""Levels of a verdict: no bit differs beyond float rounding; differs, but as quantization explains; no fault found, but
something could not be judged; more than quantization explains."""
Form = Literal["as given", "normalised"]
AS_GIVEN, NORMALISED = get_args(Form)
UnitOf = Literal["next quantizer", "accumulator"]
HistogramKey = Literal["scale_d", "scale_w", "deq_scale", "saturation"]
BoardTensorKind = Literal["input", "accumulator", "output", "graph output"]


@dataclass(frozen=True)
class Verdict:
    """The answer in words.

    Attributes:
        level: ``equal``, ``noise``, ``incomplete`` or ``diverges``.
        headline: one sentence.
        sentences: what was found, most important first.
        advice: what to do, most useful first; empty when there is nothing to do.
        brief: at most four sentences for a terminal: where, what it costs in accuracy, why, what to do.
    """

    level: Level
    headline: str
    sentences: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    brief: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """One figure of accuracy.

    Attributes:
        name: ``top-1``, ``top-5``, or a key of what the evaluator returned.
        value: the figure; a share for top-1 and top-5.
        right, total: counts behind a share; None for the evaluator's figures.
        low, high: of a share, the 95 % interval of Clopper and Pearson; None for the evaluator's figures.
        least_loss, most_loss: of top-1 of a model but the source: the 95 % interval of the share of answers that it
            loses against the source, see ``chance.loss_interval``; None of every other figure.
    """

    name: str
    value: float
    right: int | None = None
    total: int | None = None
    low: float | None = None
    high: float | None = None
    least_loss: float | None = None
    most_loss: float | None = None


@dataclass(frozen=True)
class ModelEntry:
    """One model that was run.

    Attributes:
        key: what ``Difference.model`` refers to: ``source``, ``fake-quant``, ``deploy@<device>``, ``float`` or
            ``board``.
        file: path of the model, or the folder of a board's dumps.
        device: arithmetic profile; None for source and fake-quant.
        form: ``as given``, or ``normalised`` when ONNX Runtime cannot run or show the source as it is.
        settings: session options that are pinned because they change results.
        metrics: accuracy; empty without labels and evaluator.
        notes: warnings, and what no public source decides about the device.
    """

    key: str
    file: str
    device: str | None = None
    form: Form = "as given"
    settings: dict[str, str] | None = None
    metrics: tuple[Metric, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """How one tensor of one model differs from the source's.

    Attributes:
        model: key of the model.
        count: elements compared.
        max_abs, mean_abs: absolute error; None when nothing could be compared.
        max_lsb, mean_lsb: the same in steps of the quantizer that a layer's output reaches next, as far as that lets it
            through, and of the grid on which an output lies; None where there is none.
        share_lsb: share of the elements that are off by 1 LSB or more; None as above.
        cosine: of the two tensors over all samples; None when one of them is 0.
        sqnr_db: 10 log10(sum(source^2) / sum(error^2)); None when the error is 0 (see ``exact``) or the source is.
        exact: no element differs.
        not_finite: elements that are NaN or infinite in one of the models but not alike in both.
        other_size: batches in which the tensor has another number of elements, which numbers decide: no other figure
            counts them.
        top1_agreement: share of the samples whose largest element stands at the same place; for outputs only.
    """

    model: str
    count: int
    max_abs: float | None
    mean_abs: float | None
    max_lsb: float | None = None
    mean_lsb: float | None = None
    share_lsb: float | None = None
    cosine: float | None = None
    sqnr_db: float | None = None
    exact: bool = False
    not_finite: int = 0
    other_size: int = 0
    top1_agreement: float | None = None


@dataclass(frozen=True)
class OutputEntry:
    """One graph output.

    Attributes:
        name: of the output in the source.
        lsb: scale of its quantizer; None when it has none.
        differences: one for each model but the source.
    """

    name: str
    lsb: float | None
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class QuantizerCounts:
    """What one model's quantizer of a layer's input met.

    Attributes:
        model: key of the model.
        values: elements quantized.
        saturated, ties: how many were clipped, how many lay exactly between two integers.
        largest_accumulator: largest absolute int32 sum; None for the source.
    """

    model: str
    values: int
    saturated: int
    ties: int
    largest_accumulator: int | None = None


@dataclass(frozen=True)
class LayerResult:
    """One candidate layer of the ledger, in network order.

    Attributes:
        name, op_type, verdict, granularity, scale_d, read_scale, offset_d, scale_w, second_scale_d, reason, detail,
            remedy: as in the ledger.
        lsb: scale of the layer's output.
        lsb_of: ``next quantizer``, or ``accumulator`` (read_scale * scale_w, the largest) when nothing quantizes it:
            no error counts in it.
        compared: False for a layer whose tensors a model does not show (in the body of an If or Loop).
        differences: one for each model but the source.
        counts: one for each model that tells.
        bias_error: None without a bias or when refused.
        kernel_bound: largest possible |accumulator|; None when refused.
        input: what the quantizer of its first input met; None when nothing shows it.
        channels: one entry for each model but the source; empty for a layer without channels, or not compared.
        source_nodes, deploy_nodes: the layer and its neighbours in both models, in network order.
    """

    name: str
    op_type: str
    verdict: LayerVerdict
    granularity: Granularity | None
    scale_d: float | None
    read_scale: float | None
    offset_d: int | None
    scale_w: tuple[float, ...]
    second_scale_d: float | None
    reason: Reason | None
    detail: str
    remedy: str
    lsb: float | None
    lsb_of: UnitOf | None
    compared: bool
    differences: tuple[Difference, ...]
    counts: tuple[QuantizerCounts, ...] = ()
    bias_error: BiasError | None = None
    kernel_bound: int | None = None
    input: InputHistogram | None = None
    channels: tuple[ChannelErrors, ...] = ()
    source_nodes: tuple[GraphNode, ...] = ()
    deploy_nodes: tuple[GraphNode, ...] = ()


@dataclass(frozen=True)
class Divergence:
    """The first layer at which a model leaves the source by more than quantization noise.

    Attributes:
        model: key of the model.
        layer: name of the layer.
        index: of it in ``layers``.
        place: ``at`` the layer, ``before`` it (between the layers before and its quantizer) or ``behind`` it.
        cause: of a fault ``not-finite``, ``accumulator-overflow``, ``saturation``, ``zero-point-fault``,
            ``bias-fault``, ``scale-fault``, ``sign-fault``, ``weight-fault``, ``fault-between-layers`` or
            ``ledger-contradiction``; of a file that is not what the conversion writes also ``node-missing``,
            ``node-added``, ``node-replaced``, ``attribute-changed``, ``wiring-changed``, ``type-changed``,
            ``constant-changed``, ``declaration-changed``, ``file-unreadable`` or ``other-model``; of noise
            ``bias-rounding``, ``ties``, ``device-arithmetic``, ``refused-layer`` or ``inherited``.
        text: one sentence with the figures.
        advice: one sentence; empty when there is nothing to do.
        measured, explained: mean absolute error, and how much of it quantization noise explains: of a fault in its
            worst channel, fed with the model's own input; else of the layer.
        node: the node that is not what the conversion writes, or ""; it need not be in the model.
    """

    model: str
    layer: str
    index: int
    cause: Cause
    text: str
    advice: str
    measured: float
    explained: float
    place: Side = "at"
    node: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong; else quantization explains the difference."""
        return self.cause not in NOISE_CAUSES


@dataclass(frozen=True)
class Histogram:
    """Counts between edges.

    Attributes:
        key: ``scale_d``, ``scale_w``, ``deq_scale`` or ``saturation``.
        title, unit: in words.
        edges: rising, one more than counts.
        counts: of layers (scale_d, saturation) or of channels (scale_w, deq_scale).
    """

    key: HistogramKey
    title: str
    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class BoardTensor:
    """One tensor of a layer in a board's dumps against the simulated device.

    Attributes:
        layer: name.
        tensor: ``input`` (int8), ``accumulator`` (int32), ``output`` (float), or ``graph output``.
        lsb: unit: 1 for integers, else the scale of the output.
        feeds: how many dumps held it.
        difference: all of them; ``model`` is ``board``.
    """

    layer: str
    tensor: BoardTensorKind
    lsb: float | None
    feeds: int
    difference: Difference


@dataclass(frozen=True)
class BoardResult:
    """A board's dumps against the simulated device.

    Attributes:
        folder: of the dumps.
        device: the profile simulated.
        feeds: how many were compared.
        tensors: in network order, those that a dump holds.
        missing: layers of which no dump holds anything.
        layer, tensor: the first that differs; "" when none does.
        fault: whether it differs by more than public arithmetic leaves open.
        text: one sentence.
        advice: one sentence, or "".
        not_judged: dumped tensors that could not be compared, each with its reason.
    """

    folder: str
    device: str
    feeds: int
    tensors: tuple[BoardTensor, ...]
    missing: tuple[str, ...]
    layer: str
    tensor: BoardTensorKind | Literal[""]
    fault: bool
    text: str
    advice: str
    not_judged: tuple[str, ...] = ()


@dataclass(frozen=True)
class FlippedSample:
    """A sample that a model answers otherwise than the source.

    Attributes:
        index: of the sample in the data, from 0.
        label: its class.
        answers: the class of the largest score by model.
    """

    index: int
    label: int
    answers: dict[str, int]


@dataclass(frozen=True)
class FlippedSamples:
    """The samples with changed answers.

    Attributes:
        count: of all of them.
        samples: the first hundred at most, in the order of the data.
    """

    count: int
    samples: tuple[FlippedSample, ...]


@dataclass(frozen=True, repr=False)
class CompareReport(ShownReport):
    """The result of a comparison.

    Attributes:
        model, save_path, data: what was asked for.
        created: ISO 8601 time, UTC.
        complete: False when the run was interrupted; the figures are those of the samples that were run.
        samples, samples_total: run, and in the data set (None when unknown).
        seconds: of running, without setting up.
        verdict: the answer in words.
        models: what was run, the source first.
        outputs: one entry for each graph output.
        layers: one entry for each layer of the ledger.
        divergences: at most one for each model but the source.
        histograms: of scales and saturation.
        residuals, ledger_warnings, ledger_summary: the rest of the ledger.
        settings: of the comparison itself: batch size, devices, preprocessing.
        versions: of this package, Python, numpy, onnx, onnxruntime, and the machine.
        board: what a board's dumps gave; None without them.
        not_judged: parts of the models that nothing could be said of, with the reason.
        flips: samples that a model answers otherwise than the source; None without labels of classes.
        cost: of the deploy model on a device, as the ledger holds it; None when it holds none.
        state_file: of an interrupted run, what ``resume`` continues; None of a complete one, or when it could not be
            written.
    """

    SCHEMA_VERSION = 1
    SCREEN = "amct_onnx.verbs.compare.present.screen"

    model: str
    save_path: str
    data: str
    created: str
    complete: bool
    samples: int
    samples_total: int | None
    seconds: float
    verdict: Verdict
    models: tuple[ModelEntry, ...]
    outputs: tuple[OutputEntry, ...]
    layers: tuple[LayerResult, ...]
    divergences: tuple[Divergence, ...]
    histograms: tuple[Histogram, ...]
    residuals: tuple[ResidualEntry, ...]
    ledger_warnings: tuple[str, ...]
    ledger_summary: str
    settings: dict[str, str]
    versions: dict[str, str]
    board: BoardResult | None = None
    state_file: str | None = None
    not_judged: tuple[str, ...] = ()
    flips: FlippedSamples | None = None
    cost: Cost | None = None

    def summary(self) -> str:
        """The headline of the verdict."""
        return self.verdict.headline
