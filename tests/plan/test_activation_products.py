"""MatMul of two activations: int8 where both quantizers are symmetric, bit for bit; else float, and why."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import amct_onnx
from amct_onnx import DeploySession, convert_qat_model
from amct_onnx.device.profiles import PROFILES
from support.deploy_evaluator import Evaluator, run
from support.deploy_models import set_attribute
from support.device_models import DeviceEvaluator
from support.forced_source import ForcedSource
from support.golden_models import MODELS, parse_record
from support.qdq_builder import QdqBuilder
from support.written_models import Array, convert_and_compare, operators, write_model

SYMMETRIC = {"int8": np.int8(0), "uint8": np.uint8(128)}
FACTORS = {"s": np.float32(0.05), "t": np.float32(0.03), "z": np.int8(0), "u": np.uint8(128)}
PAIRS = """
    p = QuantizeLinear(a, s, z) c = DequantizeLinear(p, s, z) q = QuantizeLinear(b, t, u) d = DequantizeLinear(q, t, u)
"""


def every_integer(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> Array:
    """Floats on the grid of a symmetric quantizer: all 256 integers, as far as there is room."""
    count = int(np.prod(shape))
    integers = np.resize(rng.permutation(np.arange(-128, 128)), count)
    return (integers.astype(np.float32) * np.float32(scale)).reshape(shape)


def written(body: str, folder: Path, **constants: Array) -> Path:
    text = f"g (float[2, 3, 4] a, float[2, 4, 5] b) => (float[i, j, k] y) {{ {PAIRS} {body} }}"
    used = {n: v for n, v in (FACTORS | constants).items() if re.search(rf"\b{n}\b[,)]", text)}
    return write_model(folder / "m.onnx", text, used)


def feeds(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(2, 3, 4)).astype(np.float32), "b": rng.normal(size=(2, 4, 5)).astype(np.float32)}


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that a MatMul takes: 1 to 5 axes, batches that broadcast."""
    m, k, n = draw(st.integers(1, 5)), draw(st.sampled_from([1, 7, 64])), draw(st.integers(1, 5))
    batch = draw(st.lists(st.sampled_from([1, 2, 3]), max_size=3))
    kept = [[size if draw(st.booleans()) else 1 for size in batch] for _ in range(2)]
    first, second = (tuple(sizes[draw(st.integers(0, len(sizes))) :]) for sizes in kept)
    left = draw(st.sampled_from([(*first, m, k), (*first, m, k), (k,)]))
    right = draw(st.sampled_from([(*second, k, n), (*second, k, n), (k,)]))
    return left, right


@dataclass(frozen=True)
class Product:
    """Two operands: shapes, types and scales of their quantizers, and a seed for their numbers."""

    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    kinds: tuple[str, str]
    scales: tuple[float, float]
    seed: int


PRODUCTS = st.builds(
    Product,
    shapes(),
    st.tuples(*[st.sampled_from(list(SYMMETRIC))] * 2),
    st.tuples(*[st.floats(2.0**-10, 4.0, width=32)] * 2),
    st.integers(0, 2**16),
)
QUICK = settings(
    max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
SLOW = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@QUICK
@given(PRODUCTS)
def test_any_shape_is_exact(product: Product) -> None:
    with tempfile.TemporaryDirectory() as folder:
        is_exact(product, Path(folder))


@pytest.mark.slow
@SLOW
@given(PRODUCTS)
def test_many_shapes_are_exact(product: Product) -> None:
    with tempfile.TemporaryDirectory() as folder:
        is_exact(product, Path(folder))


def is_exact(product: Product, folder: Path) -> None:
    """Source, both models and every chip agree; the reference makes the exact sum times one product of scales."""
    shapes, kinds, scales, rng = product.shapes, product.kinds, product.scales, np.random.default_rng(product.seed)
    b = QdqBuilder()
    operands = [
        b.activation(b.input(name, shape), scale, np.asarray(SYMMETRIC[kind]))
        for name, shape, scale, kind in zip("ab", shapes, scales, kinds, strict=True)
    ]
    rank = np.matmul(np.ones(shapes[0]), np.ones(shapes[1])).ndim
    b.output(b.node("MatMul", operands, "product", "y"), shape=[f"d{i}" for i in range(rank)])
    data = {n: every_integer(s, f, rng) for n, s, f in zip("ab", shapes, scales, strict=True)}
    report, deploy = convert_and_compare(b.save(folder), data, units=0)
    (entry,) = report.converted
    assert (entry.scale_d, entry.scale_w, entry.second_scale_d) == (scales[0], (scales[1],), scales[1])
    assert operators(deploy) == ["AscendQuant", "AscendQuant", "MatMul", "AscendDequant"]
    # the sum itself: integers times one product of scales
    sums = np.matmul(*(np.rint(data[n] / np.float32(f)).astype(np.int64) for n, f in zip("ab", scales, strict=True)))
    expected = sums.astype(np.float32) * (np.float32(scales[0]) * np.float32(scales[1]))
    for device in PROFILES:
        with DeploySession(report.deploy_model, device=device) as session:
            (found,) = session.run(None, data)
        np.testing.assert_array_equal(
            found, DeviceEvaluator(report.deploy_model, device).run(data)["y"], err_msg=device
        )
        if device == "reference":
            np.testing.assert_array_equal(found, expected)


FORMS = {
    "data movement behind the pairs": (
        "e = Transpose<perm=[0,2,1]>(c) f = Transpose<perm=[0,2,1]>(d) y = MatMul(f, e)",
        2,
        0,
    ),
    "one tensor is both operands": ("e = Slice(c, zero, three, axis) y = MatMul(e, e)", 1, 0),
    "operands have other readers": ("m = MatMul(c, d) e = Sigmoid(c) f = Tanh(d) n = MatMul(e, f) y = Add(m, n)", 2, 2),
    "a factor that the next pair takes along": (
        "e = Mul(d, half) r = QuantizeLinear(e, small, u) f = DequantizeLinear(r, small, u) y = MatMul(c, f)",
        2,
        0,
    ),
    "a layer reads the second operand too": (
        "w = DequantizeLinear(i8, s) m = MatMul(c, d) n = MatMul(d, w) y = Concat<axis=1>(m, n)",
        2,
        0,
    ),
    "a constant is added": ("m = MatMul(c, d) y = Add(m, bias)", 2, 0),
    "a range narrower than int8": ("k = Clip(q, low, high) f = DequantizeLinear(k, t, u) y = MatMul(c, f)", 2, 0),
    "bodies of an If": (
        "y = If (yes) <then_branch = g1 () => (float[i, j, k] y1) { y1 = MatMul(c, d) }, "
        "else_branch = g2 () => (float[i, j, k] y2) { e = Neg(c) y2 = MatMul(e, d) }>",
        4,
        2,
    ),
}
CONSTANTS: dict[str, Array] = {
    "zero": np.array([0]),
    "three": np.array([3]),
    "axis": np.array([2]),
    "half": np.float32(0.5),
    "small": np.float32(0.03) * np.float32(0.5),
    "i8": np.random.default_rng(3).integers(-128, 128, (5, 5)).astype(np.int8),
    "bias": np.linspace(-1, 1, 5, dtype=np.float32),
    "low": np.uint8(100),
    "high": np.uint8(200),
    "yes": np.array(True),
}


@pytest.mark.parametrize(("body", "quants", "antiquants"), FORMS.values(), ids=FORMS.keys())
def test_forms(body: str, quants: int, antiquants: int, tmp_path: Path) -> None:
    path = written(body, tmp_path, **CONSTANTS)
    report, deploy = convert_and_compare(path, feeds(), units=0)
    products = [e for e in report.layers if e.second_scale_d is not None]
    assert products and all(e.reason == "activation-not-quantized" for e in report.refused)
    found = [n.op_type for n in all_nodes(deploy.graph)]
    assert (found.count("AscendQuant"), found.count("AscendAntiQuant")) == (quants, antiquants)
    for device in PROFILES:
        ours, theirs = (
            r.run(feeds()) for r in (DeviceEvaluator(report.deploy_model, device), _Session(report, device))
        )
        np.testing.assert_array_equal(ours["y"], theirs["y"], err_msg=device)


def test_second_quantizer_that_restores_the_integers_is_replaced(tmp_path: Path) -> None:
    """It quantizes with the first pair's scale, and the layer reads with its own: the ledger has both."""
    body = FORMS["a factor that the next pair takes along"][0]
    report, _ = convert_and_compare(written(body, tmp_path, **CONSTANTS), feeds(), units=0)
    (entry,) = report.converted
    assert (entry.second_input, entry.second_scale_d) == ("b", float(np.float32(0.03)))
    assert entry.scale_w == (float(CONSTANTS["small"]),)


@pytest.mark.parametrize("ranks", [(None, None), (None, 1), (1, None), (1, 1)])
def test_what_may_be_two_vectors_stays_float(ranks: tuple[int | None, int | None], tmp_path: Path) -> None:
    b = QdqBuilder()
    shapes = [None if rank is None else [5] for rank in ranks]
    names = [b.activation(b.input(n, s), 0.25, np.asarray(np.int8(0))) for n, s in zip("ab", shapes, strict=True)]
    b.output(b.node("MatMul", names, "product", "y"))
    data = {n: every_integer((5,), 0.25, np.random.default_rng(0)) for n in "ab"}
    report, _ = convert_and_compare(b.save(tmp_path), data, units=0)
    (entry,) = report.refused
    assert entry.reason == "activation-by-activation"
    assert ("is unknown" in entry.detail) == (None in ranks)


@pytest.mark.parametrize("known", ["first", "second", "result", "Transpose"])
def test_one_matrix_is_enough(known: str, tmp_path: Path) -> None:
    b = QdqBuilder()
    shapes = {"first": ([3, 5], None), "second": (None, [5, 4])}.get(known, (None, None))
    zero = np.asarray(np.int8(0))
    first, second = (b.activation(b.input(n, s), 0.25, zero) for n, s in zip("ab", shapes, strict=True))
    if known == "Transpose":
        second = b.node("Transpose", [second], "turned", "t", perm=[1, 0])
    b.output(b.node("MatMul", [first, second], "product", "y"), shape=["i", "j"] if known == "result" else None)
    data = {
        "a": every_integer((3, 5), 0.25, np.random.default_rng(0)),
        "b": every_integer((4, 5) if known == "Transpose" else (5, 4), 0.25, np.random.default_rng(1)),
    }
    report, _ = convert_and_compare(b.save(tmp_path), data, units=0)
    assert len(report.converted) == 1


@pytest.mark.parametrize("zeros", [(np.int8(3), np.int8(0)), (np.int8(0), np.uint8(127)), (np.uint8(0), np.int8(-5))])
def test_offset_is_refused_by_name(zeros: tuple[np.generic, np.generic], tmp_path: Path) -> None:
    b = QdqBuilder()
    names = [b.activation(b.input(n, [2, 2]), 0.25, np.asarray(z)) for n, z in zip("ab", zeros, strict=True)]
    b.output(b.node("MatMul", names, "product", "y"), shape=[2, 2])
    data = {n: every_integer((2, 2), 0.25, np.random.default_rng(0)) for n in "ab"}
    report, deploy = convert_and_compare(b.save(tmp_path), data, units=0)
    (entry,) = report.refused
    assert entry.reason == "activation-offset" and "zero point 0, or uint8 with 128" in entry.remedy
    for place, name, zero in zip(("first", "second"), names, zeros, strict=True):
        middle = 128 if zero.dtype == np.uint8 else 0
        told = f"the zero point {zero} of its {place} input '{name}' is not {middle}"
        assert (told in entry.detail) == (zero != middle)
    assert "MatMul" in operators(deploy) and "AscendDequant" not in operators(deploy)


@pytest.mark.parametrize(
    ("body", "options", "reason", "text"),
    [
        ("y = MatMul(c, d)", {"act_matmul": "off"}, "activation-by-activation", "act_matmul is 'off'"),
        ("y = MatMul(c, b)", {}, "activation-not-quantized", "its input 'b' has no QuantizeLinear"),
        ("y = MatMul(a, d)", {}, "activation-not-quantized", "its input 'a' has no QuantizeLinear"),
    ],
)
def test_stays_float(body: str, options: dict[str, str], reason: str, text: str, tmp_path: Path) -> None:
    report = convert_qat_model(written(body, tmp_path), tmp_path / "m", **options)
    (entry,) = report.refused
    assert entry.reason == reason and text in entry.detail
    source, fake = (run(str(p), feeds(), qdq_source=True)["y"] for p in (tmp_path / "m.onnx", report.fake_quant_model))
    assert np.array_equal(fake, source)


def test_gemm_with_a_factor_stays_float(tmp_path: Path) -> None:
    b = QdqBuilder()
    names = [b.activation(b.input(n, [4, 4]), 0.25, np.asarray(np.int8(0))) for n in "ab"]
    b.output(b.node("Gemm", names, "product", "y", alpha=0.5), shape=[4, 4])
    report, _ = convert_and_compare(
        b.save(tmp_path), {n: every_integer((4, 4), 0.25, np.random.default_rng(0)) for n in "ab"}, units=0
    )
    assert [(e.reason, "constant weight only" in e.detail) for e in report.refused] == [
        ("activation-by-activation", True)
    ]


def test_float16(tmp_path: Path) -> None:
    text = """g (float16[2, 3, 4] a, float16[2, 4, 5] b) => (float16[i, j, k] y) {
        e = Cast<to=1>(a) p = QuantizeLinear(e, s, z) c = DequantizeLinear(p, s, z) f = Cast<to=10>(c)
        g = Cast<to=1>(b) q = QuantizeLinear(g, s, z) d = DequantizeLinear(q, s, z) h = Cast<to=10>(d)
        y = MatMul(f, h) }"""
    path = write_model(tmp_path / "m.onnx", text, {n: FACTORS[n] for n in "sz"})
    report = convert_qat_model(path, tmp_path / "out" / "m")
    assert [e.second_scale_d for e in report.converted] == [float(FACTORS["s"])]
    data = {n: v.astype(np.float16) for n, v in feeds().items()}
    deploy, fake = Evaluator(report.deploy_model).run(data)["y"], run(report.fake_quant_model, data)["y"]
    assert deploy.dtype == np.float16 and np.array_equal(deploy, fake)
    # the source rounds operands, sum and result to float16
    np.testing.assert_allclose(
        fake, run(str(path), data, qdq_source=True)["y"], rtol=0, atol=2.0**-9 * np.abs(fake).max()
    )


def test_exporters_transformer(tmp_path: Path) -> None:
    """torch.ao with symmetric quantizers: both products of its attention are int8, and each layer is exact."""
    source = MODELS / "torchfx_digitstf_i8sym_op17" / "model.onnx"
    report = convert_qat_model(source, tmp_path / "m", tmp_path / "record.txt")
    products = [e for e in report.converted if e.second_input]
    assert [e.name for e in products] == ["/MatMul", "/MatMul_1"] and not report.refused
    assert report.cost is not None and report.cost.int8_macs == report.cost.macs > report.cost.constant_macs
    with np.load(source.parent / "testset.npz") as data:
        counts = ForcedSource(source, Path(report.fake_quant_model)).compare({_input(source): data["x"][:8]})
    assert counts["layers"] == len(report.converted)
    record = parse_record((tmp_path / "record.txt").read_text())
    assert all(tuple(record[e.name].scale_w) == e.scale_w for e in products)


def test_record_gives_the_same_layer_to_a_float_model(tmp_path: Path) -> None:
    path = written("y = MatMul(c, d)", tmp_path)
    first = convert_qat_model(path, tmp_path / "q" / "m", tmp_path / "record.txt")
    text = "g (float[2, 3, 4] a, float[2, 4, 5] b) => (float[i, j, k] y) { y = MatMul(a, b) }"
    model = onnx.load(write_model(tmp_path / "float.onnx", text))
    model.graph.node[0].name = first.converted[0].name
    onnx.save(model, tmp_path / "float.onnx")
    second = amct_onnx.convert_model(tmp_path / "float.onnx", tmp_path / "record.txt", tmp_path / "f" / "m")
    assert [(e.scale_d, e.scale_w) for e in second.converted] == [(e.scale_d, e.scale_w) for e in first.converted]
    deploy = [Evaluator(r.deploy_model).run(feeds())["y"] for r in (first, second)]
    assert np.array_equal(*deploy)


@pytest.mark.parametrize(("length", "beyond"), [(2**17 - 1, False), (2**17, True)])
def test_sum_that_may_leave_int32_is_said(length: int, beyond: bool, tmp_path: Path) -> None:
    b = QdqBuilder()
    shapes = {"a": [1, length], "b": [length, 1]}
    names = [b.activation(b.input(n, s), 0.25, np.asarray(np.int8(0))) for n, s in shapes.items()]
    b.output(b.node("MatMul", names, "product", "y"), shape=[1, 1])
    report = convert_qat_model(b.save(tmp_path), tmp_path / "m")
    assert any("'product': its accumulator may reach" in w for w in report.warnings) == beyond


def _input(source: Path) -> str:
    return str(onnx.load(source).graph.input[0].name)


def all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of a graph and of the bodies in it."""
    inner = [n for node in graph.node for a in node.attribute if a.HasField("g") for n in all_nodes(a.g)]
    return [*graph.node, *inner]


class _Session:
    """A DeploySession with the evaluator's call."""

    def __init__(self, report: amct_onnx.ConversionReport, device: str) -> None:
        self._session = DeploySession(report.deploy_model, device=device)

    def run(self, data: dict[str, Array]) -> dict[str, Array]:
        """The results by name."""
        names = [o.name for o in self._session.get_outputs()]
        return dict(zip(names, self._session.run(None, data), strict=True))


def test_session_says_that_a_chip_compensates_no_offset(tmp_path: Path) -> None:
    report = convert_qat_model(written("y = MatMul(c, d)", tmp_path), tmp_path / "out" / "m")
    model = onnx.load(report.deploy_model)
    set_attribute(model, next(n.name for n in model.graph.node if n.name.endswith(".second.quant")), offset=7.0)
    facts = DeploySession(model.SerializeToString()).facts
    assert [("offsets 0 and 7" in w) for f in facts for w in f.warnings] == [True]
