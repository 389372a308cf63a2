"""Small models after public bug reports of other tools: the source's own numbers, or a refusal whose reason is true.

The numbers are held to the source in ONNX Runtime with optimisations off. A layer that is int8 here and float there
rounds differently: its output may differ by a share of the largest number, and by a step of a quantizer on the way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import amct_onnx
from amct_onnx.errors import AmctError, NoQuantizerError, UnsupportedModelError
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from amct_onnx.verbs.convert.report import ConversionReport
from amct_onnx.verbs.simulate.simulate import simulate
from support.older_libraries import needs_kernels, needs_opset

pytestmark = pytest.mark.usefixtures("one_process")

FOLDER = Path(__file__).parents[1] / "data" / "reports"
ROUNDING = 1e-4
"""Of the largest output: int32 biases and float32 products in another order."""
STEP = 0.01
"""Of the largest output, where a quantizer follows an int8 layer: some values fall to the next of 256 steps."""
EXPECTED: dict[str, tuple[int, int, float]] = {
    "dead_channels/12_model": (1, 1, ROUNDING),
    "dead_channels/12_v_mm_tiny": (1, 1, 1e-3),  # its outputs are below 1, and made of rounded biases
    "dead_channels/12_v_tiny": (1, 1, ROUNDING),
    "dead_channels/12_v_zero_nz": (1, 1, ROUNDING),
    "depthwise_transpose/02_model": (0, 1, 0.0),
    "depthwise_transpose/02_v_1d_dw": (1, 1, ROUNDING),
    "depthwise_transpose/02_v_axis0_equal": (1, 1, ROUNDING),
    "depthwise_transpose/02_v_dw_axis1": (1, 1, ROUNDING),
    "depthwise_transpose/24_v_actpc_equal": (1, 1, ROUNDING),
    "depthwise_transpose/24_v_conv_axis1_eq": (1, 1, ROUNDING),
    "fake_quant_nodes/06_model": (1, 1, ROUNDING),
    "fake_quant_nodes/06_v_clipfirst": (1, 1, ROUNDING),
    "fake_quant_nodes/06_v_minmax": (1, 1, ROUNDING),
    "fake_quant_nodes/06_v_mixed": (2, 2, ROUNDING),
    "fake_quant_nodes/06_v_wprim": (1, 1, ROUNDING),
    "fake_quant_nodes/06_v_wqdq": (1, 1, ROUNDING),
    "integer_input/17_v_gather_dq": (1, 1, ROUNDING),
    "integer_input/23_v_nhwc_uint8": (1, 1, ROUNDING),
    "integer_input/23_v_uint8_preproc": (1, 1, ROUNDING),
    "integer_input/32_v_cast": (4, 4, ROUNDING),
    "integer_input/32_v_out8": (4, 4, STEP),
    "integer_input/32_v_zp0": (4, 4, ROUNDING),
    "integer_readers/15_v_max": (1, 1, ROUNDING),
    "integer_readers/15_v_relu_i8": (1, 1, ROUNDING),
    "integer_readers/23_v_argmax_of_q": (1, 1, 0.0),
    "integer_readers/30_v_split_QOperator_QUInt8": (2, 2, STEP),
    "integer_readers/30_v_topk_QOperator_QUInt8": (2, 2, STEP),
    "ort_fused/18_v_fusedgemm": (1, 1, ROUNDING),
    "ort_fused/18_v_fusedmatmul": (1, 1, ROUNDING),
    "ort_fused/18_v_skipln": (2, 2, ROUNDING),
    "ort_fused/29_v_src_all_q0": (4, 4, ROUNDING),
    "ort_fused/29_v_src_extended_q1": (4, 4, ROUNDING),
    "ort_fused/29_v_srcconv_extended_q1": (3, 3, 2 * STEP),
    "pass_through/03_v_l": (1, 1, ROUNDING),
    "pass_through/19_v_drop_between": (2, 2, STEP),
    "pass_through/31_v_concat_ongrid": (1, 1, ROUNDING),
    "pass_through/31_v_concat_zeros": (1, 1, ROUNDING),
    "pass_through/31_v_scatter0": (1, 1, ROUNDING),
    "silent_layers/14_v_einsum_heads": (1, 1, ROUNDING),
    "silent_layers/14_v_w1": (0, 1, 0.0),
    "silent_layers/16_model": (1, 2, ROUNDING),
    "silent_layers/16_v_rnn": (0, 2, 0.0),
    "stale_shapes/13_b_add": (5, 5, STEP),
    "stale_shapes/13_w_ctsame": (2, 2, ROUNDING),
    "stale_shapes/13_w_ctshape": (2, 2, ROUNDING),
    "stale_shapes/13_w_mmadd": (2, 2, ROUNDING),
    "stale_shapes/13_w_same_lower": (2, 2, ROUNDING),
}
"""Model -> layers in int8, layers in the ledger, largest difference as a share of the largest output."""
STRINGS, CONSTANT = "crashes/25_v_strings", "crashes/31_model"
UNLOADED: dict[str, tuple[int, int]] = {
    "fake_quant_nodes/05_model": (1, 1),
    "fake_quant_nodes/05_v_mixed": (1, 1),
    "integer_readers/30_v_argmax_QOperator_QInt8": (2, 2),
    "integer_readers/30_v_where_QOperator_QInt8": (2, 2),
    "pass_through/28_v_drop10": (1, 1),
}
"""Sources that this ONNX Runtime does not run: fake-quant and deploy model are held to each other alone."""


def session(path: str | Path, *, qoperator: bool = False) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if qoperator:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.x64quantprecision", "1")
    else:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds_for(opened: ort.InferenceSession) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    feeds = {}
    for each in opened.get_inputs():
        shape = [d if isinstance(d, int) and d > 0 else 3 for d in each.shape]
        if each.type in ("tensor(uint8)", "tensor(int8)"):
            low, high, kind = (0, 256, np.uint8) if "uint8" in each.type else (-128, 128, np.int8)
            feeds[each.name] = random.integers(low, high, shape).astype(kind)
        elif each.type == "tensor(int64)":
            feeds[each.name] = random.integers(0, 2, shape)
        else:
            feeds[each.name] = (random.normal(size=shape) * 1.5).astype(np.float32)
    return feeds


def converted(name: str, folder: Path) -> ConversionReport:
    return convert_qat_model(FOLDER / f"{name}.onnx", folder / "m")


def outputs(report: ConversionReport, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Of the fake-quant model; the deploy model's are the same bits."""
    fake = session(report.fake_quant_model).run(None, feeds)
    deploy = amct_onnx.DeploySession(report.deploy_model).run(None, feeds)
    for one, other in zip(fake, deploy, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)
    return fake


@pytest.mark.parametrize("name", EXPECTED)
def test_numbers_are_those_of_the_source(name: str, tmp_path: Path) -> None:
    int8, layers, share = EXPECTED[name]
    report = converted(name, tmp_path)
    assert (len(report.converted), len(report.layers)) == (int8, layers)
    needs_kernels(onnx.load(FOLDER / f"{name}.onnx"))
    source = session(FOLDER / f"{name}.onnx", qoperator="QOperator" in name)
    feeds = feeds_for(source)
    for expected, result in zip(source.run(None, feeds), outputs(report, feeds), strict=True):
        assert expected.shape == result.shape
        wanted, got = expected.astype(np.float64), result.astype(np.float64)
        if expected.dtype == np.uint8 and result.dtype == np.int8:
            got += 128
        assert np.abs(wanted - got).max(initial=0) <= share * np.abs(wanted).max(initial=0)


@pytest.mark.parametrize("name", UNLOADED)
def test_sources_that_onnxruntime_does_not_run(name: str, tmp_path: Path) -> None:
    report = converted(name, tmp_path)
    assert (len(report.converted), len(report.layers)) == UNLOADED[name]
    assert outputs(report, feeds_for(session(report.fake_quant_model)))


def test_false_declarations_are_named_and_none_is_written(tmp_path: Path) -> None:
    for path in sorted((FOLDER / "stale_shapes").glob("13_w_*.onnx")):
        report = convert_qat_model(path, tmp_path / path.stem / "m")
        assert any("is declared with shape" in w and "the graph makes" in w for w in report.warnings)
        for file in (report.deploy_model, report.fake_quant_model):
            model = onnx.load(file)
            if file == report.deploy_model:
                continue  # the same tensors, and operators that inference does not know
            declared = {v.name: v.type.tensor_type.shape for v in [*model.graph.value_info, *model.graph.output]}
            del model.graph.value_info[:]
            known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
            for value in [*known.value_info, *known.output]:
                if value.name in declared and declared[value.name].dim:
                    true = [d.dim_value for d in value.type.tensor_type.shape.dim]
                    assert [d.dim_value for d in declared[value.name].dim] == true


@pytest.mark.parametrize("name", ["19_v_bn_train", "19_v_drop_train"])
def test_training_mode_is_a_warning_by_name(name: str, tmp_path: Path) -> None:
    (warning,) = converted(f"pass_through/{name}", tmp_path).warnings
    assert ("in training mode" in warning or "(Dropout) draws random numbers" in warning) and "'n" in warning


def test_scale_of_zero_on_an_activation_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(AmctError, match=r"nDequantizeLinear_6.*scale tensor 's_1' holds \[0.0\]"):
        converted("dead_channels/12_v_act_zero", tmp_path)


@pytest.mark.parametrize("name", ["05_v_aimet", "05_v_vai"])
def test_unknown_quantizers_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(NoQuantizerError, match=r"It holds . x (aimet|com\.vai).*Quantize.*'n\w*Quantize\w*_4'"):
        converted(f"fake_quant_nodes/{name}", tmp_path)


def test_weights_that_do_not_run_with_channels_last_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"'qc' \(QLinearConv\): its weight of shape \[6, 3, 3, 4\]"):
        converted("ort_fused/18_v_nhwcqconv", tmp_path)


def written_feeds(name: str, folder: Path) -> Path:
    path = folder / "feeds.npz"
    np.savez(path, **feeds_for(session(FOLDER / f"{name}.onnx")))  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("name", [STRINGS, CONSTANT])
def test_odd_outputs_are_compared_and_simulated(name: str, tmp_path: Path) -> None:
    """Outputs of strings, and one that is an initializer."""
    report = converted(name, tmp_path)
    data = written_feeds(name, tmp_path)
    compared = amct_onnx.compare(FOLDER / f"{name}.onnx", tmp_path / "m", data)
    assert {o.name for o in compared.outputs} >= {"name" if name == STRINGS else "strides"}
    simulate(report.deploy_model, data, tmp_path / "results")
    if name == STRINGS:
        (file,) = (tmp_path / "results").rglob("*name*.npy")
        assert set(np.load(file, allow_pickle=False)) <= {"cat", "dog", "b\u00e4r"}


@pytest.mark.parametrize("name", [STRINGS, CONSTANT, "doctor/15_v_odt21", "doctor/15_v_odt25", "doctor/20_v_layerfn"])
def test_doctor_judges_them_all(name: str) -> None:
    needs_opset(max(o.version for o in onnx.load(FOLDER / f"{name}.onnx").opset_import if not o.domain))
    report = amct_onnx.doctor(FOLDER / f"{name}.onnx", feeds=2)
    assert report.exact_layers and not report.float_layers
    assert {s.verdict for s in report.settings if s.name == "as written (AMCT_SO)"} <= {"equal", "rounding", "edges"}


def test_functions_of_an_older_opset_are_inlined(tmp_path: Path) -> None:
    model = onnx.load(FOLDER / "doctor" / "20_v_layerfn.onnx")
    assert model.opset_import[0].version == 17
    for function in model.functions:
        for entry in function.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = 13
    onnx.save(model, tmp_path / "older.onnx")
    older = convert_qat_model(tmp_path / "older.onnx", tmp_path / "o")
    same = converted("doctor/20_v_layerfn", tmp_path)
    assert len(older.converted) == len(older.layers) == 2
    feeds = feeds_for(session(same.fake_quant_model))
    for one, other in zip(outputs(older, feeds), outputs(same, feeds), strict=True):
        np.testing.assert_array_equal(one, other)


def test_inputs_that_go_are_a_warning(tmp_path: Path) -> None:
    model = onnx.load(FOLDER / "pass_through" / "03_v_l.onnx")
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(model, tmp_path / "inputs.onnx")
    (warning,) = convert_qat_model(tmp_path / "inputs.onnx", tmp_path / "m").warnings
    assert f"{len(model.graph.initializer)} graph inputs have initializers" in warning
