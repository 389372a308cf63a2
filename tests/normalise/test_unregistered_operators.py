"""Operators without a plugin of ATC's parser, behind an int8 layer: written otherwise, with the source's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx import convert_qat_model
from amct_onnx.graph.atc_operators import is_accepted, registration, registrations
from support.written_models import convert_and_compare, operators

RNG = np.random.default_rng(11)
AXES = np.array([2, 3])
TAILS: dict[str, tuple[int, str, dict[str, np.ndarray], dict[str, object]]] = {
    "ReduceL1": (18, "ReduceL1 m axes", {"axes": AXES}, {"keepdims": 0}),
    "ReduceL2": (18, "ReduceL2 m axes", {"axes": AXES}, {}),
    "ReduceL2, all axes": (18, "ReduceL2 m", {}, {}),
    "GroupNormalization": (
        18,
        "GroupNormalization m gs gb",
        {"gs": np.float32([1.5, 0.5]), "gb": np.float32([0.1, -0.2])},
        {"num_groups": 2},
    ),
    "GroupNormalization, 21": (
        21,
        "GroupNormalization m gs gb",
        {"gs": RNG.normal(size=4).astype(np.float32), "gb": RNG.normal(size=4).astype(np.float32)},
        {"num_groups": 2, "epsilon": 1e-3},
    ),
    "Mish": (18, "Mish m", {}, {}),
    "Mish, 22": (22, "Mish m", {}, {}),
    "HardSwish, 14": (14, "HardSwish m", {}, {}),
    "HardSwish, 22": (22, "HardSwish m", {}, {}),
    "CenterCropPad": (18, "CenterCropPad m size", {"size": np.array([2, 4])}, {"axes": [2, 3]}),
}


def convolution(path: Path, case: str) -> Path:
    """QuantizeLinear, DequantizeLinear, Conv, and the case's operator on its result."""
    opset, words, constants, attributes = TAILS[case]
    op_type, *inputs = words.split()
    weight = RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "d"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], "wd"),
        helper.make_node("Conv", ["d", "wd"], ["m"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node(op_type, inputs, ["y"], "tail", **attributes),
    ]
    stored = {"s": np.float32(0.03), "z": np.int8(0), "w": weight, **constants}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize("case", TAILS)
def test_numbers_are_the_sources_and_every_operator_is_registered(case: str, tmp_path: Path) -> None:
    feeds = {"x": RNG.normal(size=(2, 3, 4, 6)).astype(np.float32)}
    # 2^-18: a reduction in another order than the source's kernel
    report, deploy = convert_and_compare(convolution(tmp_path / "m.onnx", case), feeds, units=2.0**-18)
    assert [e.verdict for e in report.layers] == ["converted"]
    assert TAILS[case][1].split()[0] not in operators(deploy)
    (opset,) = deploy.opset_import
    assert all(is_accepted(n.domain, n.op_type, opset.version) for n in deploy.graph.node)
    assert report.check is not None and report.check.passed


def test_what_has_no_registered_form_stays(tmp_path: Path) -> None:
    """SequenceMap has a body, but of a Loop, which has no plugin either: its own name is the better message."""
    body = helper.make_graph(
        [helper.make_node("Neg", ["e"], ["o"], "neg")],
        "b",
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )
    path = convolution(tmp_path / "m.onnx", "Mish")
    model = onnx.load(str(path))
    del model.graph.node[-1]
    model.graph.node.extend(
        [
            helper.make_node("SequenceConstruct", ["m"], ["sequence"], "sequence"),
            helper.make_node("SequenceMap", ["sequence"], ["mapped"], "map", body=body),
            helper.make_node("ConcatFromSequence", ["mapped"], ["y"], "concat", axis=0),
        ]
    )
    onnx.save(model, path)
    report = convert_qat_model(path, tmp_path / "m")
    assert "SequenceMap" in operators(onnx.load(report.deploy_model))
    assert report.check is not None
    assert ("operator-not-registered", "map") in {(f.rule, f.node) for f in report.check.of("error")}


def test_the_list() -> None:
    assert len(registrations()) > 290
    assert registration("", "ReduceL2").span() == "8..17"  # type: ignore[union-attr]
    assert registration("ai.onnx", "GreaterOrEqual").span() == "8, 12..18"  # type: ignore[union-attr]
    assert registration("npu", "NPUFastGelu").versions == (1,)  # type: ignore[union-attr]
    assert registration("com.microsoft", "Gelu") is registration("", "Loop") is None
    assert is_accepted("", "AscendQuant", 22) and not is_accepted("", "AscendQuant", 23)
    assert is_accepted("", "Constant", 13)
    assert not is_accepted("", "HardSwish", 14) and registration("", "HardSwish") is not None
