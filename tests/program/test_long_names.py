"""Names of 400 characters, as TFLite's: no screen fills with them, and what all layers have is said once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.common.short_names import LIMIT
from support.older_libraries import needs_opset
from support.typed_command import in_process

LAYERS = 6
MARKS = len("\"'(…),.:")
"""Around a name."""


def long(name: str) -> str:
    return f"model/{name}/{'block_layer_part/' * 22}{name}"


def write_source(folder: Path) -> None:
    """Layers in turn int8 behind a quantizer whose precision is not the outputs', and float ones."""
    nodes, constants = [], {"s": np.float32(0.1), "z": np.int8(0)}
    value = "x"
    for index in range(2 * LAYERS):
        quantized, floats, weight, result = (long(f"{kind}{index}") for kind in ("q", "d", "w", "conv"))
        quantize = {"precision": TensorProto.FLOAT16} if index % 2 else {}
        nodes.append(
            helper.make_node("QuantizeLinear", [value, "s", "z"], [quantized], f"{quantized}/node", **quantize)
        )
        nodes.append(helper.make_node("DequantizeLinear", [quantized, "s", "z"], [floats], f"{floats}/node"))
        constants[weight] = np.eye(4, dtype=np.int8).reshape(4, 4, 1, 1) * np.int8(90)
        if index % 2:
            read = f"{weight}/float"
            nodes.append(helper.make_node("DequantizeLinear", [weight, "s", "z"], [read], f"{read}/node"))
        else:
            constants[weight] = np.random.default_rng(index).normal(size=(4, 4, 1, 1)).astype(np.float32)
            read = weight
        nodes.append(helper.make_node("Conv", [floats, read], [result], result))
        value = result
    nodes.append(helper.make_node("Neg", [value], ["y"], "end"))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4, 2, 2]) for n in "xy"]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), folder / "m.onnx")
    np.savez(folder / "x.npz", x=np.ones((2, 4, 2, 2), np.float32))


VERBS = {
    "convert": ("--model", "m.onnx", "--save_path", "out/m"),
    "check": ("--model", "out/m_deploy_model.onnx"),
    "compare": ("--model", "m.onnx", "--save_path", "out/m", "--data", "x.npz", "-v"),
    "bias": ("--model", "m.onnx", "--output", "biases.onnx"),
    "simulate": ("--model", "out/m_deploy_model.onnx", "--data", "x.npz", "--save_path", "run/"),
}


def test_no_screen_holds_a_long_name_and_each_kind_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_opset(23)
    monkeypatch.setenv("COLUMNS", "80")
    write_source(tmp_path)
    for verb, arguments in VERBS.items():
        typed = in_process(capsys, verb, *arguments)
        assert typed.returncode in (0, 1), typed.stderr
        text = typed.stdout + typed.stderr
        named = [w for w in re.split(r"[\s│]+", text) if "block_layer" in w and str(tmp_path) not in w]
        assert max(map(len, named), default=0) <= LIMIT + MARKS, verb
        assert "…" in text, verb
        for kind in ("does not lie on an int8 grid", "divides in FLOAT16"):
            assert len(re.findall(kind.replace(" ", r"\s+"), typed.stdout)) <= 1, (verb, kind)
            assert typed.stderr.count(kind) <= 1, (verb, kind)
    ledger = json.loads((tmp_path / "out" / "m_quant.json").read_text(encoding="utf-8"))
    assert len(ledger["warnings"]) == LAYERS and long("q1") in ledger["warnings"][0]
    assert all(long(f"conv{i}") == layer["name"] for i, layer in enumerate(ledger["layers"]))
