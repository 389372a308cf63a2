"""A real exporter's model, converted, with its data as files; and faults put into the converted models."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import amct_onnx
from support.deploy_models import initializer, node, set_attribute, set_initializer
from support.golden_models import MODELS

DIGITS = "torchfx_digitsnet_u8_bnfold_op13"
SMALL = "torchfx_mlp3d_i8sym_op13"
"""For tests that ask nothing about layers."""
FOLDER = b"{folder of the case}"
THREADS = 1
"""Threads of each session. Threads that wait in a loop for the next small layer take three times the CPU time."""


@dataclass(frozen=True)
class Case:
    """Paths of one case."""

    source: Path
    prefix: Path
    data: Path
    labels: Path

    @property
    def deploy(self) -> Path:
        return Path(f"{self.prefix}_deploy_model.onnx")

    @property
    def fake_quant(self) -> Path:
        return Path(f"{self.prefix}_fake_quant_model.onnx")

    @property
    def state(self) -> Path:
        """The state of an interrupted run; a missing file when there is none."""
        found = self.states
        assert len(found) < 2, found
        return found[0] if found else Path(f"{self.prefix}_compare_state.json")

    @property
    def states(self) -> list[Path]:
        """The states of all interrupted runs."""
        return sorted(self.prefix.parent.glob(f"{self.prefix.name}_compare_state*.json"))

    @property
    def layers(self) -> list[str]:
        """Names of the converted layers, as the ledger lists them."""
        ledger = json.loads(Path(f"{self.prefix}_quant.json").read_text(encoding="utf-8"))
        return [e["name"] for e in ledger["layers"] if e["verdict"] == "converted"]

    @property
    def arguments(self) -> list[str]:
        """The words that a user types."""
        models = ["--model", str(self.source), "--save_path", str(self.prefix)]
        return ["compare", *models, "--data", str(self.data), "--threads", str(THREADS)]

    def compare(self, data: Any = None, **options: Any) -> amct_onnx.CompareReport:
        """Its models over its data, or other data."""
        return amct_onnx.compare(self.source, self.prefix, data or self.data, **{"threads": THREADS, **options})


def as_of_other_code(ledger: Path) -> None:
    """As if another version of the program had written the files: they are judged by their numbers alone."""
    content = json.loads(ledger.read_bytes())
    content["origin"]["code"] = "0" * len(content["origin"]["code"])
    ledger.write_text(json.dumps(content), encoding="utf-8")


@cache
def _conversion(name: str) -> dict[str, bytes]:
    """The files that the conversion of a model of tests/data writes; the ledger's paths begin with FOLDER."""
    with TemporaryDirectory() as folder:
        amct_onnx.convert_qat_model(MODELS / name / "model.onnx", Path(folder, "m"))
        return {p.name: p.read_bytes().replace(os.fsencode(folder), FOLDER) for p in Path(folder).glob("m_*")}


def converted(name: str, folder: Path, samples: int = 64) -> Case:
    """A converted model of tests/data, converted once for all tests of a process, and its data."""
    amct_onnx.set_logging_level("error", "error")
    source = MODELS / name / "model.onnx"
    graph = onnx.load(source, load_external_data=False).graph
    case = Case(source, folder / "m", folder / "data.npz", folder / "labels.npy")
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in _conversion(name).items():
        (folder / file).write_bytes(content.replace(FOLDER, os.fsencode(folder)))
    tested = MODELS / name / "testset.npz"
    with np.load(tested if tested.exists() else MODELS / name / "inputs.npz") as archive:
        if tested.exists():
            x, labels = archive["x"][:samples], archive["y"][:samples]
            tensor = next(i for i in graph.input if i.name not in {t.name for t in graph.initializer})
            rank = [d.dim_value for d in tensor.type.tensor_type.shape.dim]
            if all(rank[1:]) and rank[1:] != list(x.shape[1:]):  # TensorFlow: channels last
                x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type)
            np.savez(case.data, **{tensor.name: x.astype(dtype)})
        else:
            np.savez(case.data, **archive)
            labels = np.zeros(1, np.int64)
    np.save(case.labels, labels)
    return case


def scale_dequantizer(path: Path, layer: str, factor: float) -> None:
    """The deploy model's AscendDequant of a layer multiplies by something else."""
    model = onnx.load(path)
    name = node(model, f"{layer}.dequant").input[1]
    packed = numpy_helper.to_array(initializer(model, name))
    scales = (packed & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32) * np.float32(factor)
    set_initializer(model, name, (packed & ~np.uint64(0xFFFFFFFF)) | scales.view(np.uint32).astype(np.uint64))
    onnx.save(model, path)


def scale_fake_dequantizer(path: Path, layer: str, factor: float) -> None:
    """The same in the fake-quant model."""
    model = onnx.load(path)
    name = node(model, f"{layer}.fakedequant.mul").input[1]
    set_initializer(model, name, numpy_helper.to_array(initializer(model, name)) * np.float32(factor))
    onnx.save(model, path)


def drop_bias(path: Path, layer: str) -> None:
    """The deploy model's layer loses its bias."""
    model = onnx.load(path)
    del node(model, layer).input[2:]
    onnx.save(model, path)


def narrow_quantizer(path: Path, layer: str, factor: float) -> None:
    """The deploy model quantizes with finer steps and takes that back behind the layer: only the range is smaller."""
    model = onnx.load(path)
    quantizer = node(model, f"{layer}.quant")
    scale = next(a.f for a in quantizer.attribute if a.name == "scale")
    set_attribute(model, quantizer.name, scale=scale * factor)
    onnx.save(model, path)
    scale_dequantizer(path, layer, 1 / factor)


def scale_channel(path: Path, layer: str, channel: int, factor: float) -> None:
    """The deploy model's AscendDequant of a layer is wrong in one channel."""
    model = onnx.load(path)
    name = node(model, f"{layer}.dequant").input[1]
    packed = numpy_helper.to_array(initializer(model, name)).copy()
    one = packed[channel : channel + 1].astype(np.uint32).view(np.float32) * np.float32(factor)
    packed[channel : channel + 1] = one.view(np.uint32)
    set_initializer(model, name, packed)
    onnx.save(model, path)


def change_constant(path: Path, layer: str, input_index: int, position: int, by: int) -> None:
    """One weight (input 1) or bias (input 2) of the deploy model's layer is another integer."""
    model = onnx.load(path)
    name = node(model, layer).input[input_index]
    values = numpy_helper.to_array(initializer(model, name)).copy()
    values.reshape(-1)[position] += by
    set_initializer(model, name, values)
    onnx.save(model, path)


def swap_weights(path: Path, one: str, other: str) -> None:
    """Two layers of the deploy model with weights of equal shape read each other's."""
    model = onnx.load(path)
    a, b = node(model, one), node(model, other)
    a.input[1], b.input[1] = b.input[1], a.input[1]
    onnx.save(model, path)


def change_quantizer(path: Path, layer: str, *, factor: float = 1.0, offset: int = 0) -> str:
    """The AscendQuant that a layer reads has another scale or offset; its name."""
    model = onnx.load(path)
    read = node(model, layer).input[0]
    return _change(model, path, next(n for n in model.graph.node if read in n.output), factor, offset)


def change_antiquant(path: Path, *, factor: float = 1.0, offset: int = 0) -> str:
    """The deploy model's first AscendAntiQuant has another scale or offset; its name."""
    model = onnx.load(path)
    return _change(model, path, next(n for n in model.graph.node if n.op_type == "AscendAntiQuant"), factor, offset)


def _change(model: onnx.ModelProto, path: Path, target: onnx.NodeProto, factor: float, offset: int) -> str:
    held = {a.name: a.f for a in target.attribute}
    set_attribute(model, target.name, scale=held["scale"] * factor, offset=held["offset"] + offset)
    onnx.save(model, path)
    return target.name


def change_node(path: Path, name: str, *, factor: float = 1.0, offset: int = 0) -> None:
    """A quantizer of the deploy model has another scale or offset."""
    model = onnx.load(path)
    _change(model, path, next(n for n in model.graph.node if n.name == name), factor, offset)
