"""Run a deploy model over a data set and write the results, named like a board's dump."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from amct_onnx.common.arrays import Array
from amct_onnx.common.counted import counted
from amct_onnx.common.log import start_log
from amct_onnx.common.paths import check_paths
from amct_onnx.common.shown_report import ShownReport
from amct_onnx.data.images import ImageOptions
from amct_onnx.data.input_spec import specs_of
from amct_onnx.data.open_data import open_data
from amct_onnx.data.source import AnyData, name_of
from amct_onnx.device.chips import find_profile
from amct_onnx.device.collect import LayerCounts
from amct_onnx.device.facts import LayerFacts
from amct_onnx.device.session import COUNTS, LAYERS, DeploySession, LayerTensors
from amct_onnx.errors import DataError, SettingError, UnsupportedModelError
from amct_onnx.files.read import read_model
from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.model_kinds import FAKE_QUANT, QAT, kind_of
from amct_onnx.verbs.simulate.dump_names import GOLDEN, board_files, golden_files, makers_of
from amct_onnx.verbs.simulate.export_inputs import export_inputs as write_inputs
from amct_onnx.verbs.simulate.export_inputs import free_folders
from amct_onnx.verbs.simulate.result_folder import ResultFolder


@dataclass(frozen=True, repr=False)
class Simulation(ShownReport):
    """The report of a simulation; ``to_dict`` is the content of ``simulation.json`` without its list of files.

    Attributes:
        model, data: paths.
        folder: of the results; "" when nothing was written.
        device: profile name.
        feeds: how many were run.
        layers, counts: static and dynamic facts of each integer layer.
        warnings: out of specification, or not simulated.
        undecided: what no public source decides about the device.
        pinned: session options that were set because they change results.
        inputs: folders of the data as ais_bench takes them, in the order of its ``--input``; empty when not asked for.
        outputs: of each feed, arrays by name of the output; empty when they were written to ``folder``.
    """

    SCHEMA_VERSION = 1
    JSON_NOT = ("outputs",)
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
    inputs: tuple[str, ...] = ()
    outputs: tuple[dict[str, Array], ...] = field(default=(), compare=False)

    def summary(self) -> str:
        """How much was run, and where the results are."""
        place = f"results in {self.folder}" if self.folder else "outputs in memory"
        return f"{counted(self.feeds, 'feed')} on '{self.device}', {place}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, each layer with its counts; the schema is docs/simulate.md."""
        content = super().to_dict()
        counts = {c["name"]: c for c in content.pop("counts")}
        content["layers"] = [{**layer, "counts": counts.get(layer["name"])} for layer in content.pop("layers")]
        return content


def simulate(
    model: str | os.PathLike[str],
    data: AnyData,
    save_path: str | os.PathLike[str] | None = None,
    *,
    device: str = "reference",
    input_shape: str = "",
    input_type: str = "",
    images: ImageOptions | None = None,
    aipp: str | os.PathLike[str] | None = None,
    dump_layers: bool = False,
    dump_format: Literal["board", "golden"] = "board",
    file_format: Literal["npy", "bin"] = "npy",
    export_inputs: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Simulation:
    """Run every feed and write its outputs to ``<save_path>/<number>/``, the facts to ``simulation.json``.

    Without ``save_path`` the outputs are in the report, and nothing is written.

    Args:
        model: the deploy model.
        data: see ``open_data``.
        save_path: folder, created when missing; None to write nothing and to return the outputs in the report.
        device: a chip or arithmetic profile, see ``DeploySession``.
        input_shape: as ``open_data`` takes it.
        input_type: as ``open_data`` takes it.
        images: as ``open_data`` takes it.
        aipp: as ``open_data`` takes it.
        dump_layers: also write each layer's int8 input, int32 accumulator and output.
        dump_format: how the files are named: ``board``, as msaccucmp converts a board's dumps, or ``golden``, as it
            takes golden data.
        file_format: ``npy`` or ``bin`` (raw, the machine's byte order).
        export_inputs: new folder for the data as raw files, one folder for each input, as ais_bench takes them.
        progress: called with the number of feeds done and of all, None while that is unknown.

    Raises:
        AmctError: One of its subclasses; the results of an earlier run are as they were.
    """
    check_paths("save_path", "aipp", model=model, save_path=save_path, aipp=aipp)
    start_log()
    folder = None if save_path is None else ResultFolder(Path(save_path))
    if folder is None and (dump_layers or export_inputs is not None):
        raise SettingError("--dump and --export_inputs write files. Give --save_path as well.")
    collect = (COUNTS, LAYERS) if dump_layers else (COUNTS,)
    done = 0
    profile = find_profile(device)
    if dump_format == GOLDEN and file_format != "npy":
        raise SettingError("Golden data are .npy files. Leave the format out.")
    _refuse_other_kinds(model)
    kept: list[dict[str, Array]] = []
    with folder or nullcontext() as results, DeploySession(model, device=profile.name, collect=collect) as session:
        if results is not None and isinstance(data, (str, os.PathLike)):
            results.refuse_input(data)
        names, input_names = ([v.name for v in vs] for vs in (session.get_outputs(), session.get_inputs()))
        if export_inputs is not None:
            free_folders(input_names, export_inputs)
        named = board_files
        if dump_format == GOLDEN:
            makers = makers_of(list(read_model(model).graph.outputs))
            named = partial(golden_files, makers=makers, microseconds=time.time_ns() // 1000)
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
            if results is None:
                kept.append(dict(zip(names, outputs, strict=True)))
            else:
                results.add(named(zip(names, outputs, strict=True), layers), file_format)
            done += 1
            if progress is not None:
                progress(done, source.count)
        inputs = () if export_inputs is None else write_inputs(source, input_names, export_inputs)
        result = Simulation(
            model=os.fspath(model),
            data=name_of(data),
            folder="" if save_path is None else str(Path(save_path)),
            device=profile.name,
            feeds=done,
            layers=session.facts,
            counts=session.counts(),
            warnings=session.warnings,
            undecided=profile.undecided,
            pinned=session.pinned,
            inputs=inputs,
            outputs=tuple(kept),
        )
        if results is not None:
            results.commit(result.to_dict())
    return result


def _refuse_other_kinds(model: str | os.PathLike[str]) -> None:
    """Write no results that would be taken for a device's.

    Raises:
        UnsupportedModelError: The model is a source, or a fake-quant model.
    """
    kind, node = kind_of(nodes_of(read_model(model)))
    if kind in (QAT, FAKE_QUANT):
        remedy = "Convert it and give the deploy model." if kind == QAT else "Give the deploy model beside it."
        raise UnsupportedModelError(
            f"{model}: is a {kind} (see its node '{node}'), which holds no Ascend operator: its numbers are not those "
            f"of a device. {remedy}"
        )
