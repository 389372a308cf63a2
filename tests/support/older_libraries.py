"""Skip a test whose source cannot be built or run by an older onnx or ONNX Runtime, with what that library answers.

Only what stands outside of this project is probed, and never what its own code makes.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, NotImplemented

from amct_onnx.common.onnxruntime_session import open_session, session_options
from amct_onnx.files.read import read_model
from amct_onnx.verbs.compare.explain.unreliable_source import float16_quantizer, rounds_float16

SKIPS_NOTHING = {"onnx": (1, 22), "onnxruntime": (1, 24)}
"""From these versions on a source that cannot be built or run is a failure: every test runs on newer ones."""


def needs_opset(opset: int) -> None:
    """Skip when the installed onnx does not know the opset of a source."""
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        _skip("onnx", f"knows opset {newest} at most; the source is of opset {opset}")


def needs_node_names() -> None:
    """Skip when onnx's parser does not take a node's name in the text of a model."""
    try:
        onnx.parser.parse_graph("g (float x) => (float y) { [named] y = Relu(x) }")
    except onnx.parser.ParseError as error:
        _skip("onnx", f"does not parse names of nodes: {str(error).splitlines()[0]}")


def needs_kernels(model: onnx.ModelProto) -> None:
    """Skip when ONNX Runtime does not load the source: it does not know the opset, or has no kernel of an operator."""
    needs_opset(max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0))
    try:
        open_session(model.SerializeToString(), session_options())
    except (InvalidArgument, NotImplemented) as error:
        _skip("onnxruntime", str(error).strip().splitlines()[-1])


def needs_default_settings(source: Path) -> None:
    """Skip when ONNX Runtime cannot open the source with default settings: it refuses what it fused itself."""
    try:
        ort.InferenceSession(source)
    except Fail as error:
        _skip("onnxruntime", f"with default settings: {str(error).strip()}")


def needs_float16_rounding(source: Path) -> None:
    """Skip when a source quantizes float16 and ONNX Runtime's QuantizeLinear cuts it off, where ONNX rounds."""
    if not rounds_float16() and float16_quantizer(read_model(source)) is not None:
        _skip("onnxruntime", "cuts float16 off in QuantizeLinear")


def needs_right_kernel(inputs: dict[str, np.ndarray], node: onnx.NodeProto, expected: np.ndarray) -> None:
    """Skip when ONNX Runtime's kernel of one node gives other numbers than its definition.

    Args:
        inputs: name -> float32 array, for all inputs of the node.
        node: of the domain com.microsoft, with the first output "y".
        expected: "y" by the definition.
    """
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in inputs.items()]
    graph = helper.make_graph([node], "probe", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (found,) = open_session(model.SerializeToString(), session_options()).run(["y"], inputs)
    # float32 rounding is far below, a bias that is left out far above
    if not np.allclose(found, expected, rtol=1e-3, atol=1e-3):
        _skip("onnxruntime", f"computes {node.op_type} otherwise than its definition")


def needs_checked_sizes() -> None:
    """Skip where ONNX Runtime ends the whole process at a tensor of another size than the graph states.

    By version: a probe would end the process too.
    """
    if _installed("onnxruntime") < SKIPS_NOTHING["onnxruntime"]:
        _skip("onnxruntime", "ends the process at a tensor of another size than the graph states")


def _skip(library: str, what: str) -> None:
    reason = f"{library} {version(library)} {what}"
    if _installed(library) >= SKIPS_NOTHING[library]:
        pytest.fail(reason)
    pytest.skip(reason)


def _installed(library: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(library).split(".")[:2])
