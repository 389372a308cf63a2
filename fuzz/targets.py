"""Fuzz targets: each takes the bytes of one input and runs a part of the package on them."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

import amct_onnx
import beside_a_model as beside
import mutations
import numbers_target as numbers
import seeds
import surroundings
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.labels import read_labels
from amct_onnx.data.read_feeds import read_feeds
from amct_onnx.device.session import DeploySession
from amct_onnx.errors import AmctError
from amct_onnx.verbs.atc.command_line import atc_command
from amct_onnx.verbs.check.checker import check
from amct_onnx.verbs.convert.read_ledger import read_ledger
from oracle import Finding, Sandbox


@dataclass(frozen=True)
class Target:
    """A part of the package under test.

    Attributes:
        corpus: name -> bytes of an input.
        run: on the sandbox and one input; raises AmctError for an input that is refused.
        mutate: an input -> another.
    """

    corpus: Callable[[], dict[str, bytes]]
    run: Callable[[Sandbox, bytes], None]
    mutate: Callable[[bytes, random.Random, list[bytes]], bytes]


def convert(sandbox: Sandbox, content: bytes) -> None:
    """The whole conversion; then its outputs: the deploy model is checked and opened, the fake-quant model loads."""
    model = sandbox.place("in/model.onnx", content)
    report = amct_onnx.convert_qat_model(model, sandbox.target / "m", sandbox.target / "record.txt")
    check(report.deploy_model)
    read_ledger(sandbox.target / "m")
    with contextlib.suppress(AmctError):  # it may hold what has no public arithmetic
        DeploySession(report.deploy_model).close()
    if loads(model) and not loads(report.fake_quant_model):
        raise Finding("onnxruntime loads the model but not the fake-quant model")


def examine(sandbox: Sandbox, content: bytes) -> None:
    """Run all that takes any deploy model: check, atc, DeploySession."""
    model = sandbox.place("in/model.onnx", content)
    refused = None
    for take in (check, lambda m: atc_command(m, "Ascend310P3"), lambda m: DeploySession(m).close()):
        try:
            take(model)
        except AmctError as error:
            refused = error
    if refused is not None:
        raise refused


def data(sandbox: Sandbox, content: bytes) -> None:
    """The reader of data sets: the suffix is the input's first byte."""
    import numpy as np

    suffix = (".npz", ".npy", ".bin")[content[0] % 3] if content else ".npz"
    path = sandbox.place(f"in/feeds{suffix}", content[1:])
    for _ in read_feeds(path, [InputSpec("x", (2, 3), np.dtype(np.float32))]):
        pass


def labels(sandbox: Sandbox, content: bytes) -> None:
    """The reader of labels: the suffix is the input's first byte."""
    suffix = (".txt", ".csv", ".npz", ".npy")[content[0] % 4] if content else ".txt"
    path = sandbox.place(f"in/labels{suffix}", content[1:])
    read_labels(path, ["a.png", "b.png"])


def loads(model: str | Path) -> bool:
    """Whether onnxruntime loads a model, all of whose declared types and shapes must be right."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    # else it overlooks wrong shapes of inner tensors where the operator does not look at them
    options.add_session_config_entry("session.strict_shape_type_inference", "1")
    try:
        ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's classes have no common base of their own
        return False
    return True


def aipp(sandbox: Sandbox, content: bytes) -> None:
    """An AIPP configuration, applied to images of a fitting size."""
    import numpy as np

    from amct_onnx.data.input_spec import InputSpec
    from amct_onnx.data.open_data import open_data

    path = sandbox.place("in/aipp.cfg", content)
    sandbox.start()
    shapes = ((2, 6, 4), (2, 4, 4), (2, 4, 4, 3), (2, 4, 4, 4))
    error: amct_onnx.AmctError | None = None
    for shape in shapes:
        try:
            source = open_data(
                np.zeros(shape, np.uint8), [InputSpec("x", (2, 3, 4, 4), np.dtype(np.float32))], aipp=path
            )
            for _ in source:
                pass
            return
        except amct_onnx.AmctError as refused:
            error = refused
    assert error is not None
    raise error


def _aipp_corpus() -> dict[str, bytes]:
    head = "aipp_op {\n aipp_mode: static\n input_format: "
    matrix = "\n".join(f" matrix_r{r}c{c}: {9 * r + c}" for r in range(3) for c in range(3))
    return {
        "rgb": f"{head}RGB888_U8\n mean_chn_0: 3\n min_chn_1: 0.5\n var_reci_chn_2: 0.25\n}}\n".encode(),
        "nv12": f"{head}YUV420SP_U8\n csc_switch: true\n{matrix}\n input_bias_0: 16\n}}\n".encode(),
        "crop": (
            f"{head}XRGB8888_U8\n src_image_size_w: 4\n src_image_size_h: 4\n crop: true\n crop_size_w: 2\n"
            " crop_size_h: 2\n padding: true\n left_padding_size: 2\n top_padding_size: 2\n padding_value: 1.5\n}\n"
        ).encode(),
    }


def _data_corpus() -> dict[str, bytes]:
    import io

    import numpy as np

    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    files = {"npz": io.BytesIO(), "zipped": io.BytesIO(), "npy": io.BytesIO()}
    np.savez(files["npz"], x=array, other=array)
    np.savez_compressed(files["zipped"], x=array)
    np.save(files["npy"], array)
    marks = {"npz": b"\0", "zipped": b"\0", "npy": b"\1"}
    return {n: marks[n] + f.getvalue() for n, f in files.items()} | {"bin": b"\2" + array.tobytes()}


def _labels_corpus() -> dict[str, bytes]:
    texts = {"numbers": b"\0003\n-1\n2\n", "names": b"\001file,label\nsub/a.png,1\nb.png,0\n", "tabs": b"\1a.png\t1\n"}
    return texts | {f"data/{n}": bytes([2 + (c[0] == 1)]) + c[1:] for n, c in _data_corpus().items() if c[0] != 2}


def _change_bytes(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    return mutations.change_bytes(content, chance)


TARGETS = {
    "convert": Target(seeds.corpus, convert, mutations.mutate),
    "deploy": Target(seeds.deploy_corpus, examine, mutations.mutate),
    "ledger": Target(beside.ledger_corpus, beside.ledger, beside.change_json),
    "data": Target(_data_corpus, data, _change_bytes),
    "aipp": Target(_aipp_corpus, aipp, _change_bytes),
    "labels": Target(_labels_corpus, labels, _change_bytes),
    "surroundings": Target(surroundings.corpus, surroundings.run, surroundings.mutate),
    "state": Target(lambda: {"state": beside.case().state}, beside.state, beside.change_json),
    "board": Target(beside.board_corpus, beside.board, beside.change_dump),
    "evaluator": Target(beside.evaluator_corpus, beside.evaluator, beside.change_evaluator),
    "feeds": Target(beside.feeds_corpus, beside.feeds, beside.change_feeds),
    "numbers": Target(seeds.corpus, numbers.run, numbers.mutate),
}


def be_quiet() -> None:
    """Log lines of thousands of conversions help nobody."""
    logging.disable(logging.CRITICAL)
    ort.set_default_logger_severity(4)
