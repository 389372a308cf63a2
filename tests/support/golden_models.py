"""Q/DQ models made from the reference cases: a float model plus a record of quantization factors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

DATA = Path(__file__).parents[1] / "data"
GOLDENS = DATA / "goldens"
MODELS = DATA / "models"

FLOAT_CASES = sorted(p.parent.name for p in GOLDENS.glob("*/status.txt") if p.read_text().startswith("OK"))
QAT_CASES = sorted(p.parent.name for p in GOLDENS.glob("qat/*/qat.onnx"))
MODEL_CASES = (
    "torchfunc_digitsae_i8sym_ctaxis1_op13",
    "torchfx_digitsnet_i8sym_op13",
    "torchfx_digitsnet_i8sym_op17",
    "torchfx_digitsnet_u8_bnfold_op13",
    "torchfx_mlp3d_i8sym_op13",
)
"""Tidy exports, each of whose layers becomes int8; test_every_exporter.py has all models."""

_RECORD = re.compile(r'record\s*\{\s*key:\s*"([^"]*)"\s*value\s*\{([^}]*)\}\s*\}')
_FIELD = re.compile(r"(\w+):\s*(\S+)")


@dataclass(frozen=True)
class Factors:
    """Quantization factors of one layer."""

    scale_d: np.float32
    offset_d: int
    scale_w: np.ndarray
    offset_w: np.ndarray


def parse_record(text: str) -> dict[str, Factors]:
    """The factors of each layer in a record text."""
    layers = {}
    for key, body in _RECORD.findall(text):
        fields: dict[str, list[str]] = {}
        for name, value in _FIELD.findall(body):
            fields.setdefault(name, []).append(value)
        layers[key] = Factors(
            np.float32(fields["scale_d"][0]),
            int(fields["offset_d"][0]),
            np.array(fields["scale_w"], dtype=np.float32),
            np.array(fields["offset_w"], dtype=np.int32),
        )
    return layers


def weight_axis(node: onnx.NodeProto) -> int:
    """Axis of the output channel in the weight."""
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}[node.op_type]


def make_qdq(model: onnx.ModelProto, record: dict[str, Factors]) -> tuple[onnx.ModelProto, bool]:
    """A Q/DQ model with the factors of the record, and whether it is valid ONNX.

    A ConvTranspose with groups may need one scale for each output channel although its weight has fewer elements along
    the axis; exporters store that, and it is not valid.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    dims = {t.name: tuple(t.dims) for t in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    valid = True

    def pair(prefix: str, source: str, scale: np.ndarray, zero: np.ndarray, axis: int | None) -> str:
        graph.initializer.append(numpy_helper.from_array(scale, f"{prefix}_scale"))
        graph.initializer.append(numpy_helper.from_array(zero, f"{prefix}_zero_point"))
        extra = {} if axis is None else {"axis": axis}
        factors = [f"{prefix}_scale", f"{prefix}_zero_point"]
        nodes.append(
            helper.make_node("QuantizeLinear", [source, *factors], [f"{prefix}_q"], f"{prefix}_QuantizeLinear", **extra)
        )
        nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{prefix}_q", *factors], [f"{prefix}_dq"], f"{prefix}_DequantizeLinear", **extra
            )
        )
        return f"{prefix}_dq"

    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        factors = record.get(node.name)
        if factors is not None:
            assert not factors.offset_w.any()
            node.input[0] = pair(
                f"{node.name}_act", node.input[0], np.array(factors.scale_d), np.array(factors.offset_d, np.int8), None
            )
            axis = weight_axis(node)
            count = len(factors.scale_w)
            if count == 1:
                scale, zero, used_axis = factors.scale_w.reshape(()), np.array(0, np.int8), None
            else:
                scale, zero, used_axis = factors.scale_w, np.zeros(count, np.int8), axis
                valid = valid and dims[node.input[1]][axis] == count
            node.input[1] = pair(f"{node.name}_weight", node.input[1], scale, zero, used_axis)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return result, valid


def golden_qdq(name: str, folder: Path) -> tuple[Path, bool]:
    """Write the Q/DQ model of a reference case into folder; the path, and whether onnxruntime can load it."""
    case = GOLDENS / name
    model = onnx.load(str(case / "model.onnx"))
    made, valid = make_qdq(model, parse_record((case / "record.txt").read_text()))
    path = folder / "qdq.onnx"
    if name == "external_data":
        onnx.save(made, str(path), save_as_external_data=True, location="qdq.data", size_threshold=0)
    else:
        onnx.save(made, str(path))
    return path, valid
