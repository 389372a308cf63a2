"""Run a deploy model over a data set and write the results, named like a board's dump."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from amct_onnx.common.arrays import Array
from amct_onnx.common.log import start_log
from amct_onnx.common.shown_report import ShownReport
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.input_spec import specs_of
from amct_onnx.data.open_data import open_data
from amct_onnx.data.source import AnyData, name_of
from amct_onnx.device.chips import find_profile
from amct_onnx.device.collect import LayerCounts
from amct_onnx.device.facts import LayerFacts
from amct_onnx.device.session import COUNTS, LAYERS, DeploySession, LayerTensors
from amct_onnx.errors import DataError
from amct_onnx.verbs.simulate.result_folder import ResultFolder

MAX_NAME = 180
"""Characters of a name within a file name; file systems take 255 bytes, with operator, index and suffix."""


@dataclass(frozen=True, repr=False)
class Simulation(ShownReport):
    """The report of a simulation; ``to_dict`` is the content of ``simulation.json`` without its list of files.

    Attributes:
        model, data, folder: paths.
        device: profile name.
        feeds: how many were run.
        layers, counts: static and dynamic facts of each integer layer.
        warnings: out of specification, or not simulated.
        undecided: what no public source decides about the device.
        pinned: session options that were set because they change results.
    """

    SCHEMA_VERSION = 1
    SCREEN = "amct_onnx.verbs.simulate.screen"

    model: str
    data: str
    folder: str
    device: str
    feeds: int
    layers: tuple[LayerFacts, ...]
    counts: tuple[LayerCounts, ...]
    warnings: tuple[str, ...]
    undecided: tuple[str, ...]
    pinned: dict[str, str]

    def summary(self) -> str:
        """How much was run, and where the results are."""
        noun = "feed" if self.feeds == 1 else "feeds"
        return f"{self.feeds} {noun} on '{self.device}', results in {self.folder}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, each layer with its counts; the schema is docs/simulate.md."""
        content = super().to_dict()
        counts = {c["name"]: c for c in content.pop("counts")}
        content["layers"] = [{**layer, "counts": counts.get(layer["name"])} for layer in content.pop("layers")]
        return content


def simulate(
    model: str | os.PathLike[str],
    data: AnyData,
    save_path: str | os.PathLike[str],
    *,
    device: str = "reference",
    input_shape: str = "",
    input_type: str = "",
    images: ImageOptions | None = None,
    aipp: str | os.PathLike[str] | None = None,
    dump_layers: bool = False,
    file_format: Literal["npy", "bin"] = "npy",
    progress: Callable[[int, int | None], None] | None = None,
) -> Simulation:
    """Run every feed and write its outputs to ``<save_path>/<number>/``, the facts to ``simulation.json``.

    Args:
        model: the deploy model.
        data: see ``open_data``.
        save_path: folder, created when missing.
        device: a chip or arithmetic profile, see ``DeploySession``.
        input_shape: as ``open_data`` takes it.
        input_type: as ``open_data`` takes it.
        images: as ``open_data`` takes it.
        aipp: as ``open_data`` takes it.
        dump_layers: also write each layer's int8 input, int32 accumulator and output.
        file_format: ``npy`` or ``bin`` (raw, the machine's byte order).
        progress: called with the number of feeds done and of all, None while that is unknown.

    Raises:
        AmctError: One of its subclasses; the results of an earlier run are as they were.
    """
    start_log()
    folder = Path(save_path)
    collect = (COUNTS, LAYERS) if dump_layers else (COUNTS,)
    done = 0
    profile = find_profile(device)
    with ResultFolder(folder) as results, DeploySession(model, device=profile.name, collect=collect) as session:
        if isinstance(data, (str, os.PathLike)):
            results.refuse_input(data)
        names = [o.name for o in session.get_outputs()]
        source = open_data(
            data, specs_of(session), input_shape=input_shape, input_type=input_type, images=images, aipp=aipp
        )
        for feeds in source:
            layers: tuple[LayerTensors, ...] = ()
            try:
                if dump_layers:
                    outputs, layers = session.run_layers(feeds)
                else:
                    outputs = session.run(None, feeds)
            except DataError as error:
                raise DataError(f"{name_of(data)}: feed {done}: {error}") from error
            except Exception as error:  # onnxruntime's classes share no base
                raise DataError(f"{name_of(data)}: feed {done} cannot be run ({error}). Check its shapes.") from error
            files = [(file_name(n), v) for n, v in zip(names, outputs, strict=True)]
            results.add(files + [f for layer in layers for f in layer_files(layer)], file_format)
            done += 1
            if progress is not None:
                progress(done, source.count)
        result = Simulation(
            model=os.fspath(model),
            data=name_of(data),
            folder=str(folder),
            device=profile.name,
            feeds=done,
            layers=session.facts,
            counts=session.counts(),
            warnings=session.warnings,
            undecided=profile.undecided,
            pinned=session.pinned,
        )
        results.commit(result.to_dict())
    return result


def file_name(name: str) -> str:
    """A node's or tensor's name as a board's dump spells it: all but letters, digits, _ and - become _.

    File systems limit the length of names: a longer one is cut, and a digest keeps it distinct.
    """
    spelt = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if len(spelt) <= MAX_NAME:
        return spelt
    return f"{spelt[:MAX_NAME]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def layer_files(layer: LayerTensors) -> list[tuple[str, Array]]:
    """Names (op_type.op_name.input/output.index, as msaccucmp writes a dump) and contents of a layer's files."""
    own, behind = f"{layer.op_type}.{file_name(layer.name)}", f"AscendDequant.{file_name(layer.dequantizer)}"
    return [
        (f"{own}.input.0", layer.input),
        (f"{own}.output.0", layer.accumulator),
        (f"{behind}.output.0", layer.output),
    ]
