"""DeploySession: whole models bit for bit against the independent evaluator, and its interface."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from amct_onnx import AMCT_SO, DeploySession, convert_qat_model
from amct_onnx.device.profiles import PROFILES
from amct_onnx.device.session import static_facts
from amct_onnx.errors import DataError, ModelFileError, SettingError
from support.converted_cases import CASES, converted, feeds_of
from support.deploy_evaluator import Evaluator, run
from support.device_models import (
    F16,
    F32,
    RANDOM,
    DeviceEvaluator,
    dequant,
    int8,
    model,
    outputs,
    packed,
    quant,
    same,
)
from support.golden_models import GOLDENS, MODEL_CASES, MODELS

ORACLES = sorted(str(p.parent.relative_to(GOLDENS)) for p in GOLDENS.rglob("m_deploy_model.onnx"))
FLOAT16_MODELS = ("torchfq_digitsnet_i8sym_fp16_dynamo20", "modeloptonnx_resnet_fp16")


@pytest.mark.parametrize("case", CASES)
def test_our_deploy_models(case: str, tmp_path: Path) -> None:
    _, _, report = converted(case, tmp_path)
    feeds = feeds_of(case)
    with DeploySession(report.deploy_model) as session:
        same(outputs(session, feeds), Evaluator(report.deploy_model).run(feeds))
        assert [f.name for f in session.facts] == [e.name for e in report.converted]


@pytest.mark.parametrize("case", ORACLES)
def test_deploy_models_of_the_vendor(case: str) -> None:
    path, feeds = GOLDENS / case / "m_deploy_model.onnx", feeds_of(case)
    with DeploySession(path) as session:
        same(outputs(session, feeds), Evaluator(path).run(feeds))
        assert session.facts and not session.warnings


def test_a_lost_opset_is_assumed_and_warned_about() -> None:
    path, feeds = GOLDENS / "conv2d_bias" / "m_deploy_model.onnx", feeds_of("conv2d_bias")
    proto = onnx.load(path)
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    session = DeploySession(proto.SerializeToString())
    assert "opset 13 is assumed" in session.warnings[0]
    same(outputs(session, feeds), Evaluator(path).run(feeds))


@pytest.mark.parametrize("device", sorted(set(PROFILES) - {"reference"}))
@pytest.mark.parametrize(
    "case", [*MODEL_CASES, "conv2d_offset", "conv1d_bias", "conv3d_bias", "matmul_add", "deconv_g2"]
)
def test_devices_on_whole_models(case: str, device: str, tmp_path: Path) -> None:
    _, _, report = converted(case, tmp_path)
    feeds = feeds_of(case)
    session = DeploySession(report.deploy_model, device=device)
    same(outputs(session, feeds), DeviceEvaluator(report.deploy_model, device).run(feeds))


# -- the session ------------------------------------------------------------------------------------------------------

TIDY = GOLDENS / "qat" / "net" / "m_deploy_model.onnx"


@pytest.mark.parametrize("device", sorted(PROFILES))
def test_every_float16_node_rounds(device: str) -> None:
    """ONNX Runtime alone would add, multiply and add in float32 and round once; numpy rounds after each."""
    constants = {
        "w": int8(6, 5),
        "deq": packed(0.0123),
        "a": RANDOM.normal(size=(9, 5)).astype(np.float16),
        "b": RANDOM.normal(size=5).astype(np.float16),
        "k": np.float16(3.3),
    }
    then = helper.make_graph(
        [
            helper.make_node("Mul", ["s", "k"], ["t"], "then_mul"),
            helper.make_node("Add", ["t", "b"], ["u"], "then_add"),
        ],
        "then",
        [],
        [helper.make_tensor_value_info("u", F16, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["v"], "else")],
        "else",
        [],
        [helper.make_tensor_value_info("v", F16, None)],
    )
    nodes = [
        helper.make_node("Mul", ["x", "k"], ["x1"], "mul"),
        helper.make_node("Add", ["x1", "k"], ["x2"], "add"),
        quant("x2", "q", 20.0, 3),
        helper.make_node("MatMul", ["q", "w"], ["m"], "layer"),
        dequant("m", "d", dtype=1),
        helper.make_node("Add", ["d", "a"], ["s"], "add2"),
        helper.make_node("If", ["c"], ["z"], "if", then_branch=then, else_branch=other),
        helper.make_node("Mul", ["s", "k"], ["y"], "mul2"),
        helper.make_node("Add", ["y", "b"], ["y2"], "add3"),
        helper.make_node("Greater", ["y2", "y"], ["more"], "greater"),
    ]
    inputs = {"x": (F16, [9, 6]), "c": (TensorProto.BOOL, [])}
    types = {"y2": F16, "y": F16, "z": F16, "more": TensorProto.BOOL}
    x = RANDOM.normal(size=(9, 6)).astype(np.float16)
    with DeploySession(model(nodes, inputs, types, constants), device=device) as session:
        y2, y, z, more = session.run(None, {"x": x, "c": np.array(True)})
    k = constants["k"]
    rules = PROFILES[device]
    q = rules.quantize(x * k + k, 20.0, 3).astype(np.int64)
    accumulator = (q - 3) @ constants["w"].astype(np.int64)
    scaled = rules.dequantize(accumulator, np.float32(0.0123)).astype(np.float16) + constants["a"]
    assert y.dtype == y2.dtype == z.dtype == np.float16
    assert np.array_equal(y, scaled * k) and np.array_equal(y2, scaled * k + constants["b"])
    assert np.array_equal(z, y2) and np.array_equal(more, y2 > y)


@pytest.mark.parametrize("name", FLOAT16_MODELS)
def test_an_exported_float16_model_is_evaluated_node_by_node(name: str, tmp_path: Path) -> None:
    report = convert_qat_model(MODELS / name / "model.onnx", tmp_path / "m")
    with np.load(MODELS / name / "inputs.npz") as archive:
        feeds = dict(archive)
    for device in PROFILES:
        with DeploySession(report.deploy_model, device=device) as session:
            same(outputs(session, feeds), DeviceEvaluator(report.deploy_model, device).run(feeds))
    expected = Evaluator(report.deploy_model).run(feeds)
    same(outputs(DeploySession(report.deploy_model), feeds), expected)
    # so does the fake-quant model, however onnxruntime is set
    same(run(report.fake_quant_model, feeds), expected)
    stock = ort.InferenceSession(report.fake_quant_model, providers=["CPUExecutionProvider"])
    same(dict(zip(expected, stock.run(list(expected), feeds), strict=True)), expected)


def test_interface_of_a_session() -> None:
    feeds = feeds_of("qat/net")
    session = DeploySession(TIDY.read_bytes(), None, ["CPUExecutionProvider"], collect=("counts", "layers"))
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [("x", [1, 3, 16, 16], "tensor(float)")]
    assert [(o.name, o.shape, o.type) for o in session.get_outputs()] == [("y", [1, 5], "tensor(float)")]
    assert session.get_providers() == ["CPUExecutionProvider"]
    (first,) = session.run(["y"], feeds)
    (second,), layers = session.run_layers(feeds)
    assert np.array_equal(first, second)
    # onnxruntime takes an empty list for all outputs
    assert np.array_equal(session.run([], feeds)[0], first)
    assert [t.name for t in layers] == [f.name for f in session.facts]
    for tensors in layers:
        assert (tensors.input.dtype, tensors.accumulator.dtype, tensors.output.dtype) == (np.int8, np.int32, np.float32)
    with pytest.raises(SettingError, match="'m' is not an output"):
        session.run(["m"], feeds)
    session.close()
    with pytest.raises(SettingError, match="closed"):
        session.run(None, feeds)
    assert session.counts()[0].values == 3 * 3 * 16 * 16


@pytest.mark.parametrize(
    "providers",
    [
        None,
        [],
        "CPUExecutionProvider",
        ["CUDAExecutionProvider", "CPUExecutionProvider"],
        [("CUDAExecutionProvider", {"device_id": 0}), ("CPUExecutionProvider", {"use_arena": "0"})],
        ort.get_available_providers(),
    ],
)
def test_providers_as_users_write_them(providers: list[str] | None) -> None:
    session = DeploySession(TIDY, ort.SessionOptions(), providers)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.pinned["providers"] == "CPUExecutionProvider"


def test_metadata_and_options_of_a_session() -> None:
    proto = onnx.load(TIDY)
    onnx.helper.set_model_props(proto, {"classes": "cat,dog"})
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    with DeploySession(proto.SerializeToString(), options) as session:
        assert session.get_modelmeta().custom_metadata_map == {"classes": "cat,dog"}
        assert session.get_session_options().intra_op_num_threads == 2
        assert session.get_session_options().graph_optimization_level.name == session.pinned["graph_optimization_level"]
        assert list(session.get_provider_options()) == session.get_providers()
        run_options = ort.RunOptions()
        run_options.terminate = True
        with pytest.raises(Exception, match="terminate"):
            session.run(None, feeds_of("qat/net"), run_options)


def test_a_model_without_ascend_operators_is_named() -> None:
    """Most often the QAT or the fake-quant model, given by mistake."""
    (warning,) = DeploySession(TIDY.with_name("m_fake_quant_model.onnx")).warnings
    assert "no Ascend operator" in warning
    assert DeploySession(TIDY).warnings == ()


def test_an_initializer_among_the_inputs_is_a_constant() -> None:
    """As ATC takes it: a certificate of fed weights would certify nothing."""
    proto = onnx.load(TIDY)
    weights = [i for i in proto.graph.initializer if i.data_type == TensorProto.INT8]
    proto.graph.input.extend(onnx.helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights)
    session, feeds = DeploySession(proto.SerializeToString()), feeds_of("qat/net")
    assert [i.name for i in session.get_inputs()] == ["x"]
    same(outputs(session, feeds), Evaluator(TIDY).run(feeds))
    with pytest.raises(DataError, match=f"no input '{weights[0].name}'"):
        session.run(None, {**feeds, weights[0].name: numpy_helper.to_array(weights[0])})


@pytest.mark.parametrize(
    ("feeds", "text"),
    [
        ([np.ones((1, 3, 16, 16), np.float32)], "The feeds are a list"),
        (None, "The feeds are a NoneType"),
        ({}, "'x' is missing"),
        ({"x": None}, "'x' is missing"),
        ({"x": np.ones((1, 3, 16, 16), np.float32), "z": np.ones(1)}, "no input 'z'"),
        ({"x": np.ones((1, 3, 16, 16))}, r"'x' is float64\[1, 3, 16, 16\], the model takes float32\[1, 3, 16, 16\]"),
        ({"x": np.ones((1, 3, 16), np.float32)}, r"float32\[1, 3, 16\], the model takes"),
        ({"x": np.ones((2, 3, 16, 16), np.float32)}, r"float32\[2, 3, 16, 16\], the model takes"),
    ],
)
def test_feeds_that_do_not_fit(feeds: Any, text: str) -> None:
    session = DeploySession(TIDY, collect="layers")
    for call in (lambda: session.run(None, feeds), lambda: session.run_layers(feeds)):
        with pytest.raises(DataError, match=text):
            call()


def test_bytes_never_read_a_file() -> None:
    nodes = [quant("x", "q", 1.0), helper.make_node("MatMul", ["q", "w"], ["m"], "mm"), dequant("m", "y")]
    weight = np.ones((32, 64), np.int8)
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, {"w": weight, "deq": packed(1.0)})
    onnx.save(onnx.load_model_from_string(content), "m.onnx", save_as_external_data=True, size_threshold=100)
    assert DeploySession("m.onnx").run(None, {"x": np.ones((1, 32), np.float32)})[0].shape == (1, 64)
    with pytest.raises(ModelFileError, match="'w' in a file beside the model"):
        DeploySession(Path("m.onnx").read_bytes())


def test_dumped_layers_are_those_of_the_evaluator(tmp_path: Path) -> None:
    for case in ("qat/net", "conv2d_offset", "matmul_add"):
        path = GOLDENS / case / "m_deploy_model.onnx"
        evaluator = Evaluator(path)
        evaluator.run(feeds_of(case))
        nodes = {n.name: n for n in evaluator.model.graph.node}
        _, layers = DeploySession(path, collect="layers").run_layers(feeds_of(case))
        assert layers
        for tensors in layers:
            behind = nodes[tensors.dequantizer]
            assert np.array_equal(tensors.input, evaluator.values[nodes[tensors.name].input[0]])
            assert np.array_equal(tensors.accumulator, evaluator.values[behind.input[0]])
            assert np.array_equal(tensors.output, evaluator.values[behind.output[0]])


def test_options_are_pinned_for_the_session_alone() -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    feeds = feeds_of("qat/net")
    session = DeploySession(TIDY, options)
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"
    assert session.pinned["graph_optimization_level"] == "ORT_DISABLE_ALL"
    same(outputs(session, feeds), Evaluator(TIDY).run(feeds))
    same(outputs(DeploySession(TIDY, AMCT_SO), feeds), Evaluator(TIDY).run(feeds))


def test_threads_share_a_session() -> None:
    """Each gets its own results and errors, and no count is lost."""
    (x,) = feeds_of("qat/net").values()
    feeds = [{"x": x * np.float32(factor)} for factor in range(1, 9)]
    session = DeploySession(TIDY, collect=("counts", "layers"))
    expected = [session.run_layers(f) for f in feeds]
    once = session.counts()
    session.clear_counts()
    right: list[int] = []

    def work(start: int) -> None:
        for index in [(start + i) % 8 for i in range(8)]:
            outputs, layers = session.run_layers(feeds[index])
            with pytest.raises(DataError, match="do not fit"):
                session.run(None, {"x": x[:, :1]})
            assert np.array_equal(outputs[0], expected[index][0][0])
            for ours, theirs in zip(layers, expected[index][1], strict=True):
                assert np.array_equal(ours.accumulator, theirs.accumulator)
        right.append(start)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(right) == list(range(8))
    for ours, single in zip(session.counts(), once, strict=True):
        assert single.values is not None and single.saturated is not None and single.ties is not None
        assert (ours.values, ours.saturated, ours.ties) == (8 * single.values, 8 * single.saturated, 8 * single.ties)
        assert ours.largest_accumulator == single.largest_accumulator


@pytest.mark.parametrize("device", sorted(PROFILES))
@pytest.mark.parametrize("offset", [0, 37])
def test_counts(device: str, offset: int) -> None:
    x = np.array([[0.5, 1.5, -2.5, 0.4, 126.5, 127.5, 300, -300, np.inf, -np.inf, 0, 1]], np.float32)
    nodes = [quant("x", "q", 1.0, offset), helper.make_node("MatMul", ["q", "w"], ["m"], "mm"), dequant("m", "y")]
    weight = np.full((12, 2), [[3, -5]], np.int8)
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, {"w": weight, "deq": packed(1.0)})
    session = DeploySession(content, device=device, collect="counts")
    for _ in range(2):
        session.run(None, {"x": x})
    q = PROFILES[device].quantize(x, 1.0, offset) - offset
    (counts,) = session.counts()
    assert (counts.name, counts.values, counts.ties) == ("mm", 24, 2 * 5)
    with np.errstate(invalid="ignore"):
        before = np.rint(x) + offset if device == "reference" else np.rint(x + offset)
    assert counts.saturated == 2 * int(((before > 127) | (before < -128)).sum())
    assert counts.largest_accumulator == abs(5 * q.sum())


def test_static_facts_warn() -> None:
    weight = np.full((140000, 1), 127, np.int8)
    nodes = [quant("x", "q", 1e-5, 0), helper.make_node("MatMul", ["q", "w"], ["m"], "mm"), dequant("m", "y")]
    content = model(nodes, {"x": (F32, None)}, {"y": F32}, {"w": weight, "deq": packed(1e5)})
    (fact,) = static_facts(content)
    assert fact.worst_accumulator == 128 * 127 * 140000 and fact.kernel == "integer"
    text = " ".join(fact.warnings)
    assert "2^31 - 1" in text and "AscendQuant's scale 1e-05" in text and "100000 exceeds" in text
    assert not fact.deq_scale_in_float16
