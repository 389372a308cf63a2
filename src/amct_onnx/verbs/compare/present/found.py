"""What the verdict of a comparison is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amct_onnx.plan.ledger import LayerEntry
from amct_onnx.verbs.compare.explain.doubts import Doubt
from amct_onnx.verbs.compare.explain.unlike_outputs import Unlike
from amct_onnx.verbs.compare.measure.accuracy import Accuracy
from amct_onnx.verbs.compare.report import BoardResult, Divergence, ModelEntry, OutputEntry


@dataclass(frozen=True)
class Found:
    """What the verdict is made of.

    Attributes:
        models, outputs, divergences: of the report.
        layers: of the ledger.
        accuracy: by model, empty without labels.
        doubts: about the source and the data, the most telling first: they come before all else.
        warnings: what else is odd about data and files.
        witness: a sentence about onnxruntime's default settings, or "".
        complete: False for a partial run.
        board: what a board's dumps gave, or None.
        not_judged: parts of the models that nothing could be said of.
        float_model: the float model before quantization, which is measured and not judged, or None.
        unlike: outputs that do not resemble the source's.
        dropped: quantizers that the conversion left out on request, so that other numbers are meant.
        max_drop: what the first metric may lose, in points (1 point is 1 % of a share, else 1); None to leave that to
            chance.
    """

    models: Sequence[ModelEntry]
    outputs: Sequence[OutputEntry]
    divergences: Sequence[Divergence]
    layers: Sequence[LayerEntry]
    accuracy: Mapping[str, Accuracy]
    warnings: Sequence[str] = ()
    witness: str = ""
    complete: bool = True
    board: BoardResult | None = None
    not_judged: Sequence[str] = ()
    max_drop: float | None = None
    float_model: ModelEntry | None = None
    doubts: Sequence[Doubt] = ()
    unlike: Sequence[Unlike] = ()
    dropped: int = 0

    @property
    def faults(self) -> list[Divergence]:
        """In the order of the network."""
        return sorted((d for d in self.divergences if d.is_fault), key=lambda d: d.index)


def listed_models(keys: Sequence[str]) -> str:
    """Several models in a sentence."""
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"
