"""Every model of tests/data/models, as its exporter wrote it: converted, counted, and compared with its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from amct_onnx.files.read import read_model
from amct_onnx.graph.atc_operators import is_accepted
from amct_onnx.normalise.pipeline import normalise
from amct_onnx.verbs.convert.report import ConversionReport
from exporters_page import ALL_MODELS, PAGE, convert, exporter_of, float_rows, make_page
from support.deploy_evaluator import Evaluator, run, session
from support.forced_source import ForcedSource, runnable
from support.golden_models import MODELS
from support.older_libraries import needs_float16_rounding
from support.qlinear_evaluator import QLinearEvaluator

pytestmark = pytest.mark.usefixtures("one_process")

LAYER_OF = {
    **{kind: kind for kind in ("Conv", "ConvTranspose", "Gemm", "MatMul")},
    "QLinearConv": "Conv",
    "QLinearMatMul": "MatMul",
    "QGemm": "Gemm",
    "ConvInteger": "Conv",
    "MatMulInteger": "MatMul",
}
OWN_FORMS = set(LAYER_OF) - {"Conv", "ConvTranspose", "Gemm", "MatMul"}
FLOAT16 = 2.0**-6
"""Relative to the largest output of a float16 model, two steps of an 8-bit quantizer: onnxruntime computes its
operators in float32 and drops casts between two of them, so that intermediate values of two equal models are rounded to
float16 (2^-11) at different places, and an integer may fall on the other side of a tie."""
converted = cache(convert)
"""One conversion of each model serves all tests."""
QUICK = [n for n in ALL_MODELS if [m for m in ALL_MODELS if exporter_of(m) == exporter_of(n)].index(n) % 8 == 0]
"""Every eighth model of an exporter, and its first; the others are slow tests, which .ci/run runs."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all conversions of this process."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(
    params=[pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in ALL_MODELS], scope="module"
)
def name(request: pytest.FixtureRequest) -> str:
    """Folder name of a model; all tests of one follow each other, so that two processes share out the models."""
    return str(request.param)


@pytest.fixture(scope="module")
def report(name: str, folder: Path) -> ConversionReport:
    """The conversion of a model."""
    return converted(name, folder)


def all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of a graph and of the bodies in it."""
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                found += all_nodes(body)
    return found


def source_proto(name: str) -> onnx.ModelProto:
    """The source without its external data."""
    return onnx.load(str(MODELS / name / "model.onnx"), load_external_data=False)


def feeds_of(name: str) -> dict[str, np.ndarray]:
    """The stored inputs, an array for each input that is not an initializer."""
    data = np.load(MODELS / name / "inputs.npz")
    graph = source_proto(name).graph
    constants = {t.name for t in graph.initializer}
    return {i.name: data[i.name] for i in graph.input if i.name not in constants}


def has_integer_kernels(name: str) -> bool:
    """Whether onnxruntime runs layers of the source with its own integer kernels (QOperator format)."""
    graph = source_proto(name).graph
    return bool({n.op_type for n in graph.node} & OWN_FORMS)


def runs(name: str) -> bool:
    """Whether stock onnxruntime can load the source: not with foreign operators."""
    try:
        source_outputs(name)
    except (ort.capi.onnxruntime_pybind11_state.Fail, ort.capi.onnxruntime_pybind11_state.InvalidGraph):
        return False
    return True


@cache
def source_outputs(name: str) -> Mapping[str, np.ndarray]:
    """Outputs of the source model as the exporter wrote it; its integer layers exact on every CPU."""
    if has_integer_kernels(name):
        return QLinearEvaluator(MODELS / name / "model.onnx").run(feeds_of(name))
    return run(MODELS / name / "model.onnx", feeds_of(name), qdq_source=True)


def normalised_source(name: str) -> onnx.ModelProto:
    """The source after normalisation, for onnxruntime."""
    return runnable(normalise(read_model(MODELS / name / "model.onnx")))


def in_float16(name: str) -> bool:
    """Whether the model's activations are float16."""
    return any(t.data_type == onnx.TensorProto.FLOAT16 for t in source_proto(name).graph.initializer)


def test_no_quantizer_of_the_source_is_left(report: ConversionReport) -> None:
    for path, own in ((report.deploy_model, {"AscendQuant"}), (report.fake_quant_model, set())):
        nodes = all_nodes(onnx.load(path).graph)
        kinds = {n.op_type for n in nodes}
        assert not kinds & ({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"} | OWN_FORMS)
        assert {n.domain for n in nodes} == {""}
        ascend = {k for k in kinds if k.startswith("Ascend")}
        assert bool(ascend) == bool(own and (report.converted or "anti-quant" in {r.action for r in report.residuals}))
    assert all(r.detail for r in report.residuals)


def test_every_operator_is_one_that_atc_knows(report: ConversionReport) -> None:
    model = onnx.load(report.deploy_model, load_external_data=False)
    (opset,) = model.opset_import
    nodes = all_nodes(model.graph)
    assert not [n.op_type for n in nodes if not is_accepted(n.domain, n.op_type, opset.version)]
    assert all([a.name for a in n.attribute] == ["value"] for n in nodes if n.op_type == "Constant")


def test_interface_is_unchanged(name: str, report: ConversionReport) -> None:
    graph = source_proto(name).graph
    constants = {t.name for t in graph.initializer}
    inputs = [(i.name, i.type) for i in graph.input if i.name not in constants]
    outputs = [(o.name, o.type) for o in graph.output]
    for path in (report.deploy_model, report.fake_quant_model):
        made = onnx.load(path).graph
        assert [(i.name, i.type) for i in made.input] == inputs
        assert [(o.name, o.type) for o in made.output] == outputs


def test_ledger_accounts_for_every_layer(name: str, report: ConversionReport) -> None:
    candidates = [n for n in all_nodes(source_proto(name).graph) if n.op_type in LAYER_OF]
    products = [e for e in report.layers if e.op_type in LAYER_OF.values()]
    assert Counter(LAYER_OF[n.op_type] for n in candidates) == Counter(e.op_type for e in products)
    others = [e for e in report.layers if e not in products]
    assert all(e.verdict == "refused" and e.reason in {"recurrent-layer", "einsum", "foreign-operator"} for e in others)
    assert {n.name for n in candidates if n.name} <= {e.name for e in report.layers}
    assert all(e.reason and e.detail and e.remedy for e in report.refused)
    integer = {n.name for n in all_nodes(onnx.load(report.deploy_model).graph)}
    assert {e.name for e in report.converted} <= integer


def true_findings(model: onnx.ModelProto) -> dict[str, bool]:
    """What check may find in a converted model, and whether this model is such; layers are settled by small_convs."""
    scales = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.UINT64]
    dims = [d for v in model.graph.input for d in v.type.tensor_type.shape.dim]
    types = {n.op_type for n in all_nodes(model.graph)}
    return {
        "float16-chain": "AscendQuant" in types,  # every product but 950 quantizes in float16
        "dynamic-input": any(d.dim_value <= 0 for d in dims),  # ATC wants the size
        "deq-scale-square-root": any(
            (s.astype(np.uint32).view(np.float32) < 2.0**-14).any() for s in scales
        ),  # 310, 910
        "requant-fusion": {"AscendDequant", "AscendQuant"} <= types,  # 310, 910, 310P
        "layer-undocumented": "AscendDequant" in types,  # IPV350
        "antiquant-rescales": rescaled(model),
        "add-undocumented": {"AscendAntiQuant", "Add"} <= types,  # IPV350
        "two-activations-no-gain": multiplies_activations(model),  # 310, 910, 310P, 950, IPV350
    }


def multiplies_activations(model: onnx.ModelProto) -> bool:
    """Whether a MatMul reads two AscendQuants."""
    quants = {o for n in all_nodes(model.graph) if n.op_type == "AscendQuant" for o in n.output}
    return any(n.op_type == "MatMul" and quants.issuperset(n.input) for n in all_nodes(model.graph))


def rescaled(model: onnx.ModelProto) -> bool:
    """Whether an AscendAntiQuant has another scale than its AscendQuant."""
    nodes = all_nodes(model.graph)
    quants = {o: n for n in nodes if n.op_type == "AscendQuant" for o in n.output}

    def scale(node: onnx.NodeProto) -> float:
        return next(a.f for a in node.attribute if a.name == "scale")

    antis = [n for n in nodes if n.op_type == "AscendAntiQuant"]
    return any(abs(scale(n) * scale(quants[n.input[0]]) - 1) > 1e-6 for n in antis)


def small_convs(model: onnx.ModelProto) -> set[str]:
    """int8 Conv nodes of at most 16 input channels: rolled back to float on 310 and 910, perhaps elsewhere."""
    weights = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    convs = [n for n in all_nodes(model.graph) if n.op_type == "Conv" and n.input[1] in weights]
    groups = {n.name: next((a.i for a in n.attribute if a.name == "group"), 1) for n in convs}
    return {n.name for n in convs if weights[n.input[1]].dims[1] * groups[n.name] <= 16}


def test_what_check_finds_is_true(report: ConversionReport) -> None:
    assert report.check is not None and report.check.passed
    model = onnx.load(report.deploy_model)
    rules: dict[str, set[str]] = {}
    for finding in report.check.findings:
        rules.setdefault(finding.rule, set()).add(finding.node)
    small = small_convs(model)
    for rule in ("small-channels", "small-channels-unproven"):
        assert rules.pop(rule, set()) == small
    allowed = true_findings(model)
    assert all(allowed[rule] for rule in rules)


def test_every_layer_is_int8_or_in_the_table(name: str, report: ConversionReport) -> None:
    table = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {name} | `")]
    assert table == float_rows(name, report)


def test_fake_quant_equals_deploy(name: str, report: ConversionReport) -> None:
    feeds = feeds_of(name)
    evaluator = Evaluator(report.deploy_model)
    deploy, fake = evaluator.run(feeds), run(report.fake_quant_model, feeds)
    assert evaluator.stats.exact_in_float32
    assert len(evaluator.stats.bounds) == len(report.converted) == evaluator.stats.dequants
    assert deploy.keys() == fake.keys()
    for output, value in deploy.items():
        assert value.dtype == fake[output].dtype
        if in_float16(name):
            largest = float(np.abs(value).max())
            np.testing.assert_allclose(fake[output], value, rtol=0, atol=FLOAT16 * largest)
        else:
            assert np.array_equal(fake[output], value), output


def test_fake_quant_differs_from_source_by_bias_rounding_only(name: str, report: ConversionReport) -> None:
    source, feeds = MODELS / name / "model.onnx", feeds_of(name)
    needs_float16_rounding(source)
    canonical = normalise(read_model(source))
    normalised = runnable(canonical.clone())
    forced = ForcedSource(canonical, Path(report.fake_quant_model))
    counts = forced.compare(feeds)
    assert counts["layers"] == len(report.converted)
    # what is forced is the normalised source: unless a dialect had to be translated, the same function bit for bit
    if runs(name) and not has_integer_kernels(name):
        found = run(normalised, feeds, qdq_source=True)
        for output, value in source_outputs(name).items():
            if in_float16(name):
                largest = float(np.abs(value).max())
                np.testing.assert_allclose(found[output], value, rtol=0, atol=FLOAT16 * largest)
            else:
                assert np.array_equal(found[output], value, equal_nan=True), output


def test_stored_outputs(name: str, report: ConversionReport) -> None:
    """The whole source in onnxruntime gives what was stored, so that its settings here are those of the export."""
    stored = MODELS / name / "outputs.npz"
    if not stored.exists():
        assert not runs(name)
        return
    needs_float16_rounding(MODELS / name / "model.onnx")
    data, outputs = np.load(stored), source_outputs(name)
    assert set(outputs) == set(data.files)
    for output, value in outputs.items():
        # stored on another CPU: sums in another order, 2^-20 of the largest value; a step of the output where one flips
        assert value.shape == data[output].shape
        off, largest = np.abs(value - data[output]), np.abs(value).max()
        if has_integer_kernels(name):
            # stored with kernels that may saturate (u8 x s8): that costs up to 12 % of a layer's largest value
            assert off.max() <= 0.15 * largest
        else:
            assert np.mean(off > 2.0**-20 * largest) < 0.01


def sample_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and truth of 360 samples: the model's own test set, or that of another; all are trained on digits."""
    network = name.split("_")[1]
    shape = [d.dim_value for d in source_proto(name).graph.input[0].type.tensor_type.shape.dim]
    for other in [name, *sorted(ALL_MODELS, key=lambda m: m.split("_")[1] != network)]:
        path = MODELS / other / "testset.npz"
        if path.exists():
            data = np.load(path)
            if len(shape) == data["x"].ndim and all(
                d in (0, n) for d, n in zip(shape[1:], data["x"].shape[1:], strict=True)
            ):
                return data["x"], data["y"]
    raise AssertionError(f"no test set for {name}")


def in_batches(model: Path | onnx.ModelProto, name: str, x: np.ndarray) -> np.ndarray:
    """The first output for all samples; a fixed batch size is kept, and it divides 360."""
    value = source_proto(name).graph.input[0]
    batch = value.type.tensor_type.shape.dim[0].dim_value or len(x)
    x = x.astype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    open_session = session(model, qdq_source=True)
    parts = [open_session.run(None, {value.name: x[i : i + batch]})[0] for i in range(0, len(x), batch)]
    return np.concatenate(parts)


def reference_of(name: str) -> Path | onnx.ModelProto:
    """What the fake-quant model is measured against: the source, or the twin that onnxruntime can load.

    QONNX models run nowhere: their twins are the QCDQ exports of the same trained network; where there is none, the
    normalised source takes its place. So it does for integer kernels, which are not the same on every CPU;
    test_qoperator.py compares it with exact integers.
    """
    if has_integer_kernels(name):
        return normalised_source(name)
    if runs(name):
        return MODELS / name / "model.onnx"
    twin = name.replace("_qonnx_", "_qcdq_")
    if twin != name and twin in ALL_MODELS:
        return MODELS / twin / "model.onnx"
    return normalised_source(name)


def test_whole_test_set(name: str, report: ConversionReport) -> None:
    x, truth = sample_of(name)
    assert len(x) == 360
    ours = in_batches(Path(report.fake_quant_model), name, x)
    theirs = in_batches(reference_of(name), name, x)
    if truth.ndim == 1:
        right = [int((values.reshape(len(x), -1).argmax(1) == truth).sum()) for values in (ours, theirs)]
        assert abs(right[0] - right[1]) <= 1
    else:
        errors = [float(np.square(values - truth).mean()) for values in (ours, theirs)]
        assert abs(errors[0] - errors[1]) <= 0.01 * errors[1]


@pytest.mark.parametrize("change", ["weight", "bias", "deq_scale", "scale"])
def test_a_wrong_number_is_found(change: str, folder: Path) -> None:
    """The comparison with the source would notice two models that differ."""
    case = "torchfx_digitsnet_u8_bnqat_op13"
    wrong = onnx.load(converted(case, folder).fake_quant_model)
    layer = "/b1.0/Conv"
    (node,) = [n for n in wrong.graph.node if n.name == layer]
    producers = {o: n for n in wrong.graph.node for o in n.output}
    target = {
        "weight": lambda: producers[node.input[1]].input[0],
        "bias": lambda: producers[node.input[2]].input[0],
        "deq_scale": lambda: next(n for n in wrong.graph.node if n.name == f"{layer}.fakedequant.mul").input[1],
        "scale": lambda: next(n for n in wrong.graph.node if n.name == f"{layer}.quant.fakequant.mul").input[1],
    }[change]()
    (tensor,) = [t for t in wrong.graph.initializer if t.name == target]
    array = onnx.numpy_helper.to_array(tensor).copy()
    spot = array.reshape(-1)[:1]
    spot += {"weight": np.int8(-1 if spot > 0 else 1), "bias": np.int32(2)}.get(change, spot * np.float32(2.0**-10))
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    path = folder / f"wrong_{change}.onnx"
    onnx.save(wrong, str(path))
    with pytest.raises(AssertionError, match="bound|tie"):
        ForcedSource(MODELS / case / "model.onnx", path).compare(feeds_of(case))


@pytest.mark.slow  # it converts all models
def test_page_is_what_the_command_makes(folder: Path) -> None:
    assert PAGE.read_text(encoding="utf-8") == make_page(folder, converted), "run: python tests/exporters_page.py"
