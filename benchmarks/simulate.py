"""Print what a DeploySession costs against the fake-quant model and against an all-ConvInteger lowering.

Two models are generated, with the layers of ResNet-50 and MobileNetV2 and random weights, and converted. All forms are
then measured in turn in one run, each in a process of its own: milliseconds are CPU time of one thread, the fastest
of the rounds, so that other programs on the machine hardly matter; memory is the process's peak. The fake-quant model
runs under AMCT_SO, the DeploySession under its pinned options.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
from onnx import helper, numpy_helper

ROUNDS = 15
CHIPS = ("a2", "310p", "310")
FORMS = ("fake", "deploy", "integer", "counts", *CHIPS)
LIMITS = {"time": 1.3, "memory": 1.5, "chip": 1.3}


class Network:
    """Builds a Q/DQ model of quantized Conv layers."""

    def __init__(self, size: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)
        self.count = 0
        self.input = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, size, size])

    def constant(self, array: np.ndarray) -> str:
        """Add an initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Add a node; its output."""
        self.count += 1
        output = f"t{self.count}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], f"n{self.count}", **attributes))
        return output

    def pair(self, value: str, scale: np.ndarray, axis: int | None = None) -> str:
        """Q and DQ."""
        factors = (self.constant(scale.astype(np.float32)), self.constant(np.zeros(scale.shape, np.int8)))
        extra = {} if axis is None else {"axis": axis}
        return self.node("DequantizeLinear", self.node("QuantizeLinear", value, *factors, **extra), *factors, **extra)

    def conv(self, x: str, cin: int, cout: int, kernel: int, stride: int = 1, group: int = 1, act: bool = True) -> str:
        """A quantized Conv with per-channel weights, bias and ReLU."""
        shape = (cout, cin // group, kernel, kernel)
        weight = self.random.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        scale = np.abs(weight).reshape(cout, -1).max(axis=1) / 127
        x = self.pair(x, np.array(0.03))
        w = self.pair(self.constant(weight), scale, 0)
        bias = self.constant(self.random.normal(0, 0.1, cout).astype(np.float32))
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        y = self.node("Conv", x, w, bias, group=group, **sizes)
        return self.node("Relu", y) if act else y

    def model(self, x: str, channels: int) -> onnx.ModelProto:
        """Close with pooling and a quantized Gemm."""
        x = self.node("Flatten", self.node("GlobalAveragePool", x))
        weight = self.random.normal(0, channels**-0.5, (1000, channels)).astype(np.float32)
        w = self.pair(self.constant(weight), np.array(np.abs(weight).max() / 127))
        y = self.node("Gemm", self.pair(x, np.array(0.03)), w, transB=1)
        out = helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, [1, 1000])
        graph = helper.make_graph(self.nodes, "network", [self.input], [out], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def resnet50() -> onnx.ModelProto:
    """The layers of ResNet-50."""
    net = Network(224)
    x = net.conv("x", 3, 64, 7, 2)
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    cin = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            side = net.conv(x, cin, 4 * width, 1, step, act=False) if block == 0 else x
            y = net.conv(net.conv(x, cin, width, 1), width, width, 3, step)
            y = net.conv(y, width, 4 * width, 1, act=False)
            x = net.node("Relu", net.node("Add", y, side))
            cin = 4 * width
    return net.model(x, cin)


def mobilenetv2() -> onnx.ModelProto:
    """The layers of MobileNetV2."""
    net = Network(224)
    x, cin = net.conv("x", 3, 32, 3, 2), 32
    settings = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expand, cout, blocks, stride in settings:
        for block in range(blocks):
            step = stride if block == 0 else 1
            wide = cin * expand
            y = net.conv(x, cin, wide, 1) if expand > 1 else x
            y = net.conv(y, wide, wide, 3, step, group=wide)
            y = net.conv(y, wide, cout, 1, act=False)
            x = net.node("Add", x, y) if step == 1 and cin == cout else y
            cin = cout
    return net.model(net.conv(x, cin, 1280, 1), 1280)


def worker(form: str, path: str, device: str) -> None:
    """Answer each line of stdin with the CPU milliseconds of one run; the last line with the peak memory in MiB."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    feeds = {"x": np.random.default_rng(1).normal(0, 1, (1, 3, 224, 224)).astype(np.float32)}
    if form == "fake":
        from amct_onnx.common.onnxruntime_session import AMCT_SO

        AMCT_SO.intra_op_num_threads = 1
        session = ort.InferenceSession(path, AMCT_SO)
    elif form == "integer":
        from amct_onnx.device.chips import find_profile
        from amct_onnx.device.lowered_session import LoweredSession
        from amct_onnx.device.lowering.lower import lower
        from amct_onnx.files.read import read_model

        session = LoweredSession(lower(read_model(path), find_profile(device), integer_kernels=True), options)
    else:
        from amct_onnx.device.session import DeploySession

        device = form if form in CHIPS else device
        session = DeploySession(path, options, device=device, collect=("counts",) if form == "counts" else ())
    session.run(None, feeds)
    for line in sys.stdin:
        if not line.strip():
            break
        start = time.thread_time()
        session.run(None, feeds)
        print((time.thread_time() - start) * 1e3, flush=True)
    print(peak_memory(), flush=True)


def peak_memory() -> float:
    """MiB; getrusage would count what the parent had before it became this program."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def measure(paths: dict[str, str], device: str) -> tuple[dict[str, float], dict[str, float]]:
    """Fastest CPU milliseconds and peak MiB of each form."""
    processes = {
        form: subprocess.Popen(
            [sys.executable, __file__, "--worker", form, "--model", paths[form], "--device", device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for form in FORMS
    }

    def ask(form: str, line: str) -> float:
        process = processes[form]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        return float(process.stdout.readline())

    times = {form: min(ask(form, "run\n") for _ in range(1)) for form in FORMS}
    for _ in range(ROUNDS):
        for form in FORMS:
            times[form] = min(times[form], ask(form, "run\n"))
    memory = {form: ask(form, "\n") for form in FORMS}
    for process in processes.values():
        process.communicate()
    return times, memory


def main() -> None:
    """Generate, convert, measure, print; exit 1 when a limit is missed on the reference device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="reference")
    parser.add_argument("--worker")
    parser.add_argument("--model")
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.model, arguments.device)
        return
    from amct_onnx import DeploySession, convert_qat_model, set_logging_level

    set_logging_level("error", "error")
    kept = True
    for make in (resnet50, mobilenetv2):
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(make(), f"{folder}/qat.onnx")
            report = convert_qat_model(f"{folder}/qat.onnx", f"{folder}/m")
            paths = {form: report.fake_quant_model if form == "fake" else report.deploy_model for form in FORMS}
            with DeploySession(report.deploy_model, device=arguments.device) as session:
                proven = sum(f.exact_in_float32 for f in session.facts)
                print(
                    f"{make.__name__}, device {arguments.device}: {proven} of {len(session.facts)} layers proven exact"
                )
                print(f"  pinned: {json.dumps(session.pinned)}")
            times, memory = measure(paths, arguments.device)
        for form in FORMS:
            print(f"  {form:8}{times[form]:9.1f} ms {memory[form]:8.0f} MiB")
        ratios = {
            "time": times["deploy"] / times["fake"],
            "integer": times["integer"] / times["deploy"],
            "memory": memory["deploy"] / memory["fake"],
        }
        print(f"  DeploySession / fake-quant       {ratios['time']:.2f} (at most {LIMITS['time']})")
        print(f"  all-ConvInteger / DeploySession  {ratios['integer']:.2f} (depends on the CPU)")
        print(f"  peak memory / fake-quant's       {ratios['memory']:.2f} (at most {LIMITS['memory']})")
        print(f"  with counts / without            {times['counts'] / times['deploy']:.2f}")
        for chip in CHIPS:
            ratio = times[chip] / times["deploy"]
            print(f"  {chip:5}/ {arguments.device:25}{ratio:.2f} (at most {LIMITS['chip']} of the reference)")
            kept &= ratio <= LIMITS["chip"]
        kept &= ratios["time"] <= LIMITS["time"] and ratios["memory"] <= LIMITS["memory"]
    sys.exit(0 if kept or arguments.device != "reference" else 1)


if __name__ == "__main__":
    main()
