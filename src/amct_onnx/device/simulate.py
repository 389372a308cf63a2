"""Run a deploy model over a data set and write what it gives, named as a board's dump is."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_onnx.data.images import ImageOptions
from amct_onnx.data.open_data import open_data
from amct_onnx.data.read_feeds import specs_of
from amct_onnx.device.collect import LayerCounts
from amct_onnx.device.facts import LayerFacts
from amct_onnx.device.products import product
from amct_onnx.device.session import COUNTS, LAYERS, DeploySession, LayerTensors
from amct_onnx.errors import DataError, OutputError
from amct_onnx.json_text import json_text
from amct_onnx.log import start_log

FACTS_FILE = "simulation.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Simulation:
    """What a simulation did; ``to_dict`` is the content of ``simulation.json``.

    Attributes:
        model, data, folder: paths.
        device: profile name.
        feeds: how many were run.
        layers, counts: static and dynamic facts of each integer layer.
        warnings: out of specification, or not simulated.
        undecided: what no public source decides about the device.
        pinned: session options that were set because they change results.
    """

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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the schema is docs/simulate.md."""
        counts = {c.name: asdict(c) for c in self.counts}
        layers = [
            {
                **asdict(f),
                "exact_in_float32": f.exact_in_float32,
                "deq_scale_in_float16": f.deq_scale_in_float16,
                "counts": counts.get(f.name),
            }
            for f in self.layers
        ]
        content = {k: v for k, v in asdict(self).items() if k not in ("layers", "counts")}
        return {"schema_version": SCHEMA_VERSION, **content, "layers": layers}


def simulate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    save_path: str | os.PathLike[str],
    *,
    device: str = "reference",
    input_shape: str = "",
    input_type: str = "",
    images: ImageOptions | None = None,
    dump_layers: bool = False,
    file_format: str = "npy",
    progress: Callable[[int, int | None], None] | None = None,
) -> Simulation:
    """Run every feed and write its outputs to ``<save_path>/<number>/``, the facts to ``simulation.json``.

    Args:
        model: the deploy model.
        data: see ``open_data``.
        save_path: folder, created when missing.
        device: profile, see ``DeploySession``.
        input_shape: as ``open_data`` takes it.
        input_type: as ``open_data`` takes it.
        images: as ``open_data`` takes it.
        dump_layers: also write each layer's int8 input, int32 accumulator and output.
        file_format: ``npy`` or ``bin`` (raw, the machine's byte order).
        progress: called with the number of feeds done and of all, None while that is unknown.

    Raises:
        AmctError: One of its subclasses. Folders of earlier feeds stay whole, without ``simulation.json``.
    """
    start_log()
    folder = Path(save_path)
    collect = (COUNTS, LAYERS) if dump_layers else (COUNTS,)
    done = 0
    with DeploySession(model, device=device, collect=collect) as session:
        names = [o.name for o in session.get_outputs()]
        source = open_data(data, specs_of(session), input_shape=input_shape, input_type=input_type, images=images)
        for feeds in source:
            layers: tuple[LayerTensors, ...] = ()
            try:
                if dump_layers:
                    outputs, layers = session.run_layers(feeds)
                else:
                    outputs = session.run(None, feeds)
            except DataError as error:
                raise DataError(f"{data}: feed {done}: {error}") from error
            except Exception as error:  # onnxruntime's classes share no base
                raise DataError(f"{data}: feed {done} cannot be run ({error}). Check its shapes.") from error
            files = [(file_name(n), v) for n, v in zip(names, outputs, strict=True)]
            files += [f for layer in layers for f in layer_files(layer)]
            with _output_errors(folder):
                # not before there is something to write: data that does not fit costs an earlier run nothing
                if not done:
                    (folder / FACTS_FILE).unlink(missing_ok=True)
                _write_feed(folder / feed_folder(done), files, file_format)
            done += 1
            if progress is not None:
                progress(done, source.count)
        result = Simulation(
            model=os.fspath(model),
            data=os.fspath(data),
            folder=str(folder),
            device=device,
            feeds=done,
            layers=session.facts,
            counts=session.counts(),
            warnings=session.warnings,
            undecided=product(device).undecided,
            pinned=session.pinned,
        )
    with _output_errors(folder):
        for earlier in reversed(_feeds_from(folder, done)):
            _remove_earlier(earlier)
        temporary = folder / f".{FACTS_FILE}.partial"
        temporary.write_text(json_text(result.to_dict()), encoding="utf-8")
        temporary.rename(folder / FACTS_FILE)
    return result


def file_name(name: str) -> str:
    """A node's or tensor's name as a board's dump spells it: all but letters, digits, _ and - become _."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def layer_files(layer: LayerTensors) -> list[tuple[str, npt.NDArray[Any]]]:
    """Names (op_type.op_name.input/output.index, as msaccucmp writes a dump) and contents of a layer's files."""
    own, behind = f"{layer.op_type}.{file_name(layer.name)}", f"AscendDequant.{file_name(layer.dequantizer)}"
    return [
        (f"{own}.input.0", layer.input),
        (f"{own}.output.0", layer.accumulator),
        (f"{behind}.output.0", layer.output),
    ]


def feed_folder(number: int) -> str:
    """Name of the folder that holds what one feed gave."""
    return f"{number:06d}"


def _write_feed(target: Path, files: Sequence[tuple[str, npt.NDArray[Any]]], file_format: str) -> None:
    """Write a feed's files into a folder that appears, or replaces that of an earlier run, when it is whole."""
    temporary = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True, mode=0o750)
        for index, (name, array) in enumerate(files):
            # names that differ only in characters a file name cannot hold
            if name in (n for n, _ in files[:index]):
                name = f"{name}.{index}"
            path = temporary / f"{name}.{file_format}"
            if file_format == "bin":
                array.tofile(path)
            else:
                np.save(path, array, allow_pickle=False)
        _remove_earlier(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _remove_earlier(target: Path) -> None:
    """Remove the folder of an earlier run's feed, unless it holds what no simulation writes."""
    if not os.path.lexists(target):
        return
    foreign = target.is_symlink() or any(not f.is_file() or f.suffix not in (".npy", ".bin") for f in target.iterdir())
    if foreign:
        raise OutputError(f"{target}: holds other files than a simulation's. Choose another save_path.")
    shutil.rmtree(target)


def _feeds_from(folder: Path, number: int) -> list[Path]:
    """Folders of an earlier run, whole or interrupted, from a number on: a run numbers them without gaps."""
    folders: list[Path] = []
    while os.path.lexists(folder / feed_folder(number + len(folders))):
        folders.append(folder / feed_folder(number + len(folders)))
    return folders


@contextmanager
def _output_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:  # an OSError too
        raise
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}). Choose a writable save_path.") from error
