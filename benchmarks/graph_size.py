"""Print the seconds of each stage for graphs of 2,000 and 20,000 nodes, their ratio, and where the time goes.

Both sizes are measured in one process, after a warm-up. A ratio near 10 means that a stage is linear in the nodes.
"""

from __future__ import annotations

import cProfile
import gc
import io
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from amct_onnx.emit.deploy import DeployEmitter
from amct_onnx.emit.fake_quant import FakeQuantEmitter
from amct_onnx.files.compose import compose
from amct_onnx.files.read import read_model
from amct_onnx.files.write import write_outputs
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.plan.planner import make_plan

SIZES = (2_000, 20_000)
CHANNELS = 8
SHOWN = 12
"""Functions listed from the profile."""
Result = TypeVar("Result")


def residual_graph(nodes: int) -> onnx.ModelProto:
    """About ``nodes`` nodes of residual blocks, as torch's FX exporter writes them.

    A block: Q, DQ, weight Q and DQ, Conv, Relu, Q, DQ, Add. All blocks share the activation scale, zero points stand
    behind Identity, every second one behind a Cast.
    """
    random = np.random.default_rng(0)
    tensors = {
        "scale": np.asarray(0.05, np.float32),
        "zero": np.asarray(0, np.int8),
        "zero_int32": np.asarray(0, np.int32),
        "weight_scale": np.linspace(0.01, 0.02, CHANNELS, dtype=np.float32),
        "weight_zero": np.zeros(CHANNELS, np.int8),
        "weight": random.uniform(-1, 1, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32),
    }
    made: list[onnx.NodeProto] = []

    def add(kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"{kind}_{len(made)}"
        made.append(helper.make_node(kind, inputs, [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def pair(value: str, factors: list[str], **attributes: object) -> str:
        return add("DequantizeLinear", [add("QuantizeLinear", [value, *factors], **attributes), *factors], **attributes)

    value = "x"
    while len(made) < nodes:
        if (len(made) // 10) % 2:
            zero = add("Cast", [add("Identity", ["zero_int32"])], to=TensorProto.INT8)
        else:
            zero = add("Identity", ["zero"])
        index = len(made)
        tensors[f"bias_{index}"] = random.uniform(-1, 1, CHANNELS).astype(np.float32)
        read = pair(value, ["scale", zero])
        weight = pair("weight", ["weight_scale", "weight_zero"], axis=0)
        conv = add("Conv", [read, weight, f"bias_{index}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        relu = add("Relu", [conv])
        value = add("Add", [read, pair(relu, ["scale", zero])])
    graph = helper.make_graph(
        made,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, 8, 8])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", CHANNELS, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def stages(path: Path, folder: Path) -> dict[str, float]:
    """Seconds of each stage for the model at path."""
    seconds: dict[str, float] = {}

    def timed(stage: str, action: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = action()
        seconds[stage] = time.perf_counter() - start
        return result

    model = timed("read", lambda: read_model(path))
    model = timed("normalise", lambda: normalise(model))
    plan = timed("plan", lambda: make_plan(model))
    deploy = timed("emit deploy", lambda: DeployEmitter(model, plan).rewrite())
    fake = timed("emit fake-quant", lambda: FakeQuantEmitter(model, plan).rewrite())
    models = timed(
        "compose", lambda: [compose(deploy, folder / "deploy.onnx"), compose(fake, folder / "fake_quant.onnx")]
    )
    timed("write", lambda: write_outputs(models, {}))
    seconds["normalise + plan"] = seconds["normalise"] + seconds["plan"]
    return seconds


def profile(path: Path, folder: Path) -> str:
    """The functions in which most of the time is spent, without what they call."""
    profiler = cProfile.Profile()
    profiler.runcall(stages, path, folder)
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(SHOWN)
    return text.getvalue()


def main() -> None:
    """Measure both sizes; ``--profile`` lists the slowest functions of the larger."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = []
        for size in SIZES:
            paths.append(folder / f"{size}.onnx")
            onnx.save(residual_graph(size), str(paths[-1]))
        stages(paths[0], folder)
        for collector in ("on", "off"):
            # Python's cycle collector visits all live objects again and again: its share is not linear, and not ours
            if collector == "off":
                gc.disable()
            small, large = (stages(path, folder) for path in paths)
            gc.enable()
            print(f"{'collector ' + collector:18}" + "".join(f"{size:>10,}" for size in SIZES) + "     ratio")
            for stage, seconds in small.items():
                print(f"{stage:18}{seconds:10.3f}{large[stage]:10.3f}{large[stage] / seconds:10.1f}")
        if "--profile" in sys.argv:
            print(profile(paths[-1], folder))


if __name__ == "__main__":
    main()
