"""DeploySession: run a deploy model on the CPU with a device's arithmetic."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from amct_onnx.common.arrays import Array
from amct_onnx.common.log import NAMES, get_logger
from amct_onnx.common.onnxruntime_session import CPU, PINNED_ENTRIES, PINNED_LEVEL
from amct_onnx.common.paths import check_paths
from amct_onnx.common.warning_kinds import first_of_each_kind
from amct_onnx.data.input_spec import DTYPES, InputSpec
from amct_onnx.device.chips import find_profile
from amct_onnx.device.collect import Collector, LayerCounts
from amct_onnx.device.facts import LayerFacts
from amct_onnx.device.lowered_session import LoweredSession
from amct_onnx.device.lowering.lower import lower
from amct_onnx.errors import DataError, ModelFileError, SettingError
from amct_onnx.files.read import read_model

COUNTS, LAYERS = "counts", "layers"
"""Values of ``collect``."""


@dataclass(frozen=True)
class LayerTensors:
    """Input, accumulator and output of one layer in one run.

    Attributes:
        name, op_type, dequantizer: the layer's node, and the name of its AscendDequant.
        producer: name of the node that makes the input: AscendQuant, or what moves its elements; "" without one.
        input: int8, what AscendQuant gave.
        accumulator: int32, what AscendDequant reads (a float32 average for AveragePool).
        output: float32 or float16, what AscendDequant gave.
    """

    name: str
    op_type: str
    producer: str
    dequantizer: str
    input: Array
    accumulator: Array
    output: Array


class DeploySession:
    """Runs a deploy model, ours or the vendor's, as ``onnxruntime.InferenceSession`` runs an ordinary one.

    ``run`` may be called from several threads. Usable as a context manager.

    Args:
        model: path of the deploy model, or its bytes (without external data).
        sess_options: onnxruntime's; those that change results are overridden, see ``pinned``. Left as they were.
        providers: any list that allows ``"CPUExecutionProvider"``, which alone is used: others compute float32 with
            fewer bits.
        device: a chip by any name (``Ascend310P3``, ``310P``, ``910B``, ``a2``, ``950``), or a profile: ``reference``,
            ``ascend950``, ``a2``, ``310p``, ``310``; see docs/arithmetic.md.
        collect: any of ``"counts"`` (``counts()`` then adds up all runs) and ``"layers"`` (``run_layers`` then works).

    Raises:
        ModelNotFoundError: There is no such file.
        ModelFileError: It is not an ONNX model.
        UnsupportedModelError: It holds something without public arithmetic, or onnxruntime refuses the rest of it.
        SettingError: An unknown device, another ``collect``, or providers without the CPU's.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        sess_options: ort.SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        *,
        device: str = "reference",
        collect: Collection[str] = (),
    ) -> None:
        wanted = {collect} if isinstance(collect, str) else set(collect)
        if wanted - {COUNTS, LAYERS}:
            raise SettingError(f"collect is {sorted(wanted)}. Use '{COUNTS}', '{LAYERS}' or both.")
        cpu = _cpu_options(providers)
        profile = find_profile(device)
        self.device = profile.name
        lowered = lower(_read(model), profile, taps=LAYERS in wanted, counters=COUNTS in wanted)
        self.facts: tuple[LayerFacts, ...] = lowered.layers
        """Static facts of the integer layers, in graph order."""
        self.warnings: tuple[str, ...] = lowered.warnings + tuple(
            f"Layer '{f.name}': {w}" for f in lowered.layers for w in f.warnings
        )
        self.pinned: dict[str, str] = {
            "graph_optimization_level": PINNED_LEVEL.name,
            **PINNED_ENTRIES,
            "providers": CPU,
        }
        """The session options that were set because they change results."""
        for warning in first_of_each_kind(self.warnings, "in the session's warnings"):
            get_logger("Simulate").warning("%s", warning, extra=NAMES)
        self._outputs = lowered.outputs
        self._taps = lowered.taps
        self._collects_layers = LAYERS in wanted
        self._collector = Collector(lowered.counters) if COUNTS in wanted else None
        self._session: LoweredSession | None = LoweredSession(lowered, sess_options, cpu)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """The named outputs, or all when None or empty; arguments as onnxruntime's.

        Raises:
            SettingError: The session is closed, or a name is not an output of the model.
            DataError: The feeds are not the model's inputs, or an array has another type or shape.
        """
        return self._run(output_names, input_feed, run_options, ())[0]

    def run_layers(self, input_feed: Mapping[str, Any]) -> tuple[list[Any], tuple[LayerTensors, ...]]:
        """All outputs, and the tensors of each integer layer outside of If and Loop bodies.

        Raises:
            SettingError: The session was opened without ``collect="layers"``, or is closed.
            DataError: As ``run``.
        """
        if not self._collects_layers:
            raise SettingError(f"run_layers() has nothing to show. Open the session with collect='{LAYERS}'.")
        names = tuple(n for t in self._taps for n in (t.input, t.accumulator, t.output))
        outputs, tensor_of = self._run(None, input_feed, None, names)
        layers = tuple(
            LayerTensors(
                t.name,
                t.op_type,
                t.producer,
                t.dequantizer,
                tensor_of[t.input],
                tensor_of[t.accumulator],
                tensor_of[t.output],
            )
            for t in self._taps
        )
        return outputs, layers

    def _run(
        self, output_names: Sequence[str] | None, feeds: Mapping[str, Any], run_options: Any, extra: tuple[str, ...]
    ) -> tuple[list[Any], dict[str, Array]]:
        session = self._open_session()
        names = [output_names] if isinstance(output_names, str) else list(output_names or self._outputs)
        unknown = [n for n in names if n not in self._outputs]
        if unknown:
            raise SettingError(f"'{unknown[0]}' is not an output of the model. Use one of {', '.join(self._outputs)}.")
        _check_feeds(session.get_inputs(), feeds)
        collector = self._collector
        more = list(dict.fromkeys([*extra, *(collector.names if collector is not None else ())]))
        results = session.run([*names, *more], feeds, run_options)
        by_name = dict(zip(more, results[len(names) :], strict=True))
        if collector is not None:
            collector.add(by_name)
        return results[: len(names)], by_name

    def get_inputs(self) -> list[Any]:
        """The model's inputs: name, shape, type."""
        return self._open_session().get_inputs()

    def get_outputs(self) -> list[Any]:
        """The model's outputs: name, shape, type."""
        return list(self._open_session().session.get_outputs()[: len(self._outputs)])

    def get_providers(self) -> list[str]:
        """The one execution provider."""
        return list(self._open_session().session.get_providers())

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """The options of the one execution provider."""
        return dict(self._open_session().session.get_provider_options())

    def get_session_options(self) -> ort.SessionOptions:
        """The options in force: yours with the pinned ones."""
        return self._open_session().session.get_session_options()

    def get_modelmeta(self) -> ort.ModelMetadata:
        """The file's producer, version, descriptions and metadata."""
        return self._open_session().session.get_modelmeta()

    def counts(self) -> tuple[LayerCounts, ...]:
        """Saturated values, ties and largest accumulator of each layer over all runs so far.

        Raises:
            SettingError: The session was opened without ``collect="counts"``.
        """
        if self._collector is None:
            raise SettingError(f"counts() has nothing to show. Open the session with collect='{COUNTS}'.")
        return self._collector.counts()

    def clear_counts(self) -> None:
        """Start counting again.

        Raises:
            SettingError: The session was opened without ``collect="counts"``.
        """
        if self._collector is None:
            raise SettingError(f"clear_counts() has nothing to clear. Open the session with collect='{COUNTS}'.")
        self._collector.clear()

    def close(self) -> None:
        """Free the session; facts, warnings and counts stay."""
        self._session = None

    def __enter__(self) -> DeploySession:
        """The session itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _open_session(self) -> LoweredSession:
        if self._session is None:
            raise SettingError("The session is closed. Open a new DeploySession.")
        return self._session


def static_facts(model: str | os.PathLike[str] | bytes, *, device: str = "reference") -> tuple[LayerFacts, ...]:
    """The static facts of a deploy model's integer layers, without running anything; errors as ``DeploySession``."""
    return lower(_read(model), find_profile(device)).layers


def _read(model: str | os.PathLike[str] | bytes) -> ir.Model:
    if not isinstance(model, bytes):
        check_paths(model=model)
        return read_model(model)
    try:
        read = ir.from_proto(onnx.load_model_from_string(model))
    except Exception as error:  # protobuf and onnx-ir raise many classes on malformed bytes
        raise ModelFileError(
            f"The {len(model)} bytes are not an ONNX model ({type(error).__name__}: {error}). Give a model's "
            "bytes or its path."
        ) from error
    if not read.opset_imports or not list(read.graph.outputs):
        raise ModelFileError("The bytes hold no ONNX model with a graph and outputs. Write the model again.")
    for graph in read.graphs():
        for name, value in graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                raise ModelFileError(
                    f"The bytes leave tensor '{name}' in a file beside the model, and say nothing of its folder. Give "
                    "the model's path."
                )
    return read


def _check_feeds(model_inputs: Sequence[Any], feeds: Mapping[str, Any]) -> None:
    """Compare names, and the type and shape of numpy arrays; anything else is left to onnxruntime."""
    if not isinstance(feeds, Mapping):
        raise DataError(f"The feeds are a {type(feeds).__name__}. Give a dict of arrays by input name.")
    inputs = {i.name: i for i in model_inputs}
    wrong = [f"'{n}' is missing" for n in inputs if feeds.get(n) is None]
    wrong += [f"the model has no input '{n}'" for n in feeds if n not in inputs]
    for name, array in feeds.items():
        if name not in inputs or not isinstance(array, np.ndarray):
            continue
        dtype, shape = DTYPES.get(inputs[name].type), inputs[name].shape
        spec = InputSpec(name, tuple(shape), np.dtype(dtype or array.dtype))
        if array.dtype != spec.dtype or not spec.fits(array.shape):
            wrong.append(
                f"'{name}' is {array.dtype}{list(array.shape)}, the model takes {spec.dtype}{list(spec.shape)}"
            )
    if wrong:
        raise DataError(f"The feeds do not fit: {'; '.join(wrong)}. Give {', '.join(inputs)}.")


def _cpu_options(providers: Sequence[Any] | None) -> dict[str, Any]:
    """The options that a list of providers, as onnxruntime takes it, gives the CPU's."""
    wanted = [providers] if isinstance(providers, str) else list(providers or [CPU])
    for provider in wanted:
        name, options = provider if isinstance(provider, tuple) and len(provider) == 2 else (provider, {})
        if name == CPU:
            return dict(options)
    raise SettingError(f"providers={wanted}: only '{CPU}' is exact. Add it, or leave providers out.")
