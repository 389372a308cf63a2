"""Sessions of lowered models: large weights are fed, options stay the caller's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from amct_onnx import AMCT_SO, DeploySession, UnsupportedModelError
from amct_onnx.common.onnxruntime_session import PINNED_ENTRIES
from amct_onnx.device.lowered_session import LoweredSession
from amct_onnx.device.lowering.lower import lower
from amct_onnx.device.profiles import PROFILES
from amct_onnx.files.read import read_model
from support.deploy_evaluator import Evaluator
from support.device_models import F32, dequant, model, packed, quant
from support.golden_models import GOLDENS

TIDY = GOLDENS / "qat" / "net" / "m_deploy_model.onnx"
RANDOM = np.random.default_rng(11)


def half_float_model() -> tuple[Path, dict[str, np.ndarray]]:
    """An int8 MatMul and a float one, each with a weight that is large enough to be fed."""
    nodes = [
        quant("x", "q", 30.0, -7),
        helper.make_node("MatMul", ["q", "w"], ["m"], "layer"),
        dequant("m", "d"),
        helper.make_node("MatMul", ["d", "v"], ["y"], "float"),
    ]
    constants = {
        "w": RANDOM.integers(-128, 128, (300, 256)).astype(np.int8),
        "v": RANDOM.normal(0, 1, (256, 128)).astype(np.float32),
        "deq": packed(1e-4),
    }
    path = Path("m.onnx")
    path.write_bytes(model(nodes, {"x": (F32, [None, 300])}, {"y": F32}, constants))
    return path, {"x": RANDOM.normal(0, 2, (3, 300)).astype(np.float32)}


@pytest.mark.parametrize(("limit", "fed"), [(1_000_000, {"w"}), (10_000, {"w", "v"})])
def test_large_weights_are_fed(limit: int, fed: set[str]) -> None:
    path, feeds = half_float_model()
    session = LoweredSession(lower(read_model(path), PROFILES["reference"]), message_limit=limit)
    assert [i.name for i in session.get_inputs()] == ["x"]
    assert {i.name for i in session.session.get_inputs()} == {"x"} | fed
    (y,) = session.run(["y"], feeds)
    assert np.array_equal(y, Evaluator(path).run(feeds)["y"])


def test_what_cannot_be_fed_is_refused() -> None:
    path, _ = half_float_model()
    with pytest.raises(UnsupportedModelError, match="more than 10 of these cannot"):
        LoweredSession(lower(read_model(path), PROFILES["reference"]), message_limit=10)


SIDE, LAYERS = 8192, 33
DEPLOY_OF_REAL_SIZE = """
import sys
import numpy as np
from amct_onnx import DeploySession
with DeploySession("m.onnx") as session:
    np.save("y.npy", session.run(None, {"x": np.load("x.npy")})[0])
    print(len(session.facts))
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_more_than_one_message_holds() -> None:
    """2.2 GB of int8 in a data file; all but the first rows of each weight are a hole in it."""
    rows, size = 64, SIDE * SIDE
    first = RANDOM.integers(-128, 128, (LAYERS, rows, SIDE)).astype(np.int8)
    with open("m.data", "wb") as file:
        for index in range(LAYERS):
            file.seek(index * size)
            file.write(first[index].tobytes())
        file.truncate(LAYERS * size)
    nodes, value = [], "x"
    for index in range(LAYERS):
        nodes += [
            quant(value, f"q{index}", 30.0, 5),
            helper.make_node("MatMul", [f"q{index}", f"w{index}"], [f"m{index}"]),
        ]
        nodes.append(dequant(f"m{index}", f"y{index}"))
        value = f"y{index}"
    proto = onnx.load_model_from_string(model(nodes, {"x": (F32, [2, SIDE])}, {value: F32}, {"deq": packed(5e-5)}))
    for index in range(LAYERS):
        entry = proto.graph.initializer.add(name=f"w{index}", data_type=TensorProto.INT8, dims=[SIDE, SIDE])
        entry.data_location = TensorProto.EXTERNAL
        for key, text in (("location", "m.data"), ("offset", index * size), ("length", size)):
            entry.external_data.add(key=key, value=str(text))
    onnx.save(proto, "m.onnx")
    x = RANDOM.normal(0, 2, (2, SIDE)).astype(np.float32)
    np.save("x.npy", x)
    result = subprocess.run(
        [sys.executable, "-c", DEPLOY_OF_REAL_SIZE], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    layers, peak = map(int, result.stdout.split())
    for weight in first.astype(np.int64):
        q = PROFILES["reference"].quantize(x[:, :rows], 30.0, 5).astype(np.int64) - 5
        x = (q @ weight).astype(np.float32) * np.float32(5e-5)
    assert layers == LAYERS and np.array_equal(np.load("y.npy"), x)
    # the weights once, one of them in float32, and what the interpreter and onnxruntime need
    assert peak * 1024 < LAYERS * size + 4 * size + 400e6


# -- options ----------------------------------------------------------------------------------------------------------


def entries_of(options: ort.SessionOptions) -> dict[str, str | None]:
    """The entries that sessions of this package care about; None for one that was never set."""
    found: dict[str, str | None] = {}
    for key in (*PINNED_ENTRIES, "session.disable_quant_qdq"):
        try:
            found[key] = options.get_session_config_entry(key)
        except RuntimeError:
            found[key] = None
    return found


@pytest.mark.parametrize("given", [{}, {"session.disable_quant_qdq": "0"}, {"session.disable_quant_qdq": "1"}, None])
def test_options_stay_as_they_are_without_a_word(
    given: dict[str, str] | None, capfd: pytest.CaptureFixture[str]
) -> None:
    options = AMCT_SO if given is None else ort.SessionOptions()
    for key, value in (given or {}).items():
        options.add_session_config_entry(key, value)
    before = entries_of(options), options.graph_optimization_level, options.execution_order
    for _ in range(2):
        DeploySession(TIDY, options).close()
    assert (entries_of(options), options.graph_optimization_level, options.execution_order) == before
    assert capfd.readouterr() == ("", "")


def test_an_entry_that_changes_results_is_overridden_and_restored() -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    nodes = [helper.make_node("Mul", ["x", "k"], ["y"], "mul")]
    content = model(nodes, {"x": (F32, [1])}, {"y": F32}, {"k": np.float32(0.5)})
    tiny = np.array([1e-40], np.float32)
    with DeploySession(content, options) as session:
        (y,) = session.run(None, {"x": tiny})
    assert y[0] == tiny[0] * np.float32(0.5) != 0
    assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"


def test_quantizers_of_onnx_are_computed_as_written_under_any_options() -> None:
    """onnxruntime would fuse them with the Conv between, in kernels that saturate on some CPUs."""
    scale, zero, weight = np.float32(0.5), np.uint8(0), np.full((1, 64, 1, 1), 127, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"]),
        helper.make_node("Conv", ["d", "v"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "t", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "t", "z"], ["y"]),
    ]
    constants = {"s": scale, "z": zero, "w": weight, "t": np.float32(4096.0)}
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "0")
    with DeploySession(model(nodes, {"x": (F32, [1, 64, 1, 1])}, {"y": F32}, constants), options) as session:
        (y,) = session.run(None, {"x": np.full((1, 64, 1, 1), 127.5, np.float32)})
    assert y.reshape(-1) == 127 * 4096  # 64 * 127.5 * 63.5 / 4096 is 126.504
