"""Models made to hurt: constants and functions that explode, and what fuzzing found; each gives one clear error."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import amct_onnx
from amct_onnx.errors import AmctError, FactorError, ModelFileError, UnsupportedModelError
from amct_onnx.graph import constants
from support.small_models import qdq_model

HEADER = '<ir_version: 8, opset_import: ["" : 13, "local" : 1, "qonnx.custom_op.general" : 1]>\n'
MEMORY = 400_000
"""kB that a refusal may take at most: 256 MiB of constants and what else is loaded; what it refuses takes gigabytes."""


def save(folder: Path, text: str, **constants: object) -> Path:
    """A model from onnx's text form, with constants by name."""
    model = onnx.parser.parse_model(HEADER + text)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    path = folder / "source.onnx"
    onnx.save(model, path)
    return path


def error_of(path: Path, kind: type[AmctError], match: str) -> str:
    """The message of the one error; nothing is written, and next to no memory is taken."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(kind, match=match) as caught:
        amct_onnx.convert_qat_model(path, path.parent / "out" / "m")
    assert not (path.parent / "out").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
    return str(caught.value)


HUGE = {
    "ConstantOfShape": "h = ConstantOfShape(big)",
    "Expand": "h = Expand(one, big)",
    "Range": "h = Range(zero, far, one)",
    "Tile": "o = Unsqueeze(one, axes) h = Tile(o, times)",
    "Pad": "o = Unsqueeze(one, axes) h = Pad(o, pads)",
    "Concat": "a = Concat <axis = 0> (w, w, w, w, w, w, w, w) b = Concat <axis = 0> (a, a, a, a, a, a, a, a) "
    "c = Concat <axis = 0> (b, b, b, b, b, b, b, b) e = Concat <axis = 0> (c, c, c, c, c, c, c, c) "
    "f = Concat <axis = 0> (e, e, e, e, e, e, e, e) g = Concat <axis = 0> (f, f, f, f, f, f, f, f) "
    "h = Concat <axis = 0> (g, g, g, g, g, g, g, g)",
    "Add": "r = Reshape(v, tall) h = Add(v, r)",
}


@pytest.mark.parametrize("name", HUGE)
def test_computed_constant_that_is_far_larger_than_the_file(tmp_path: Path, name: str) -> None:
    text = f"""g (float[n,4] x) => (float[n,m] y) {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        {HUGE[name]} k = QuantizeLinear(h, s, z) wd = DequantizeLinear(k, s, z) y = MatMul(d, wd) }}"""
    constants = {
        "s": np.float32(1),
        "z": np.int8(0),
        "one": np.float32(1),
        "zero": np.float32(0),
        "far": np.float32(2e9),
        "big": np.int64([2**16, 2**17]),
        "times": np.int64([2**33]),
        "pads": np.int64([0, 2**33]),
        "axes": np.int64([0]),
        "w": np.ones((300, 4), np.float32),
        "v": np.ones(2**14, np.float32),
        "tall": np.int64([2**14, 1]),
    }
    message = error_of(save(tmp_path, text, **constants), UnsupportedModelError, "far more than")
    assert f"({name})" in message


def test_computed_constant_in_bounds_is_computed(tmp_path: Path) -> None:
    text = """g (float[n,4] x) => (float[n,5] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        h = Expand(one, shape) k = QuantizeLinear(h, s, z) wd = DequantizeLinear(k, s, z) y = MatMul(d, wd) }"""
    factors = {"s": np.float32(1), "z": np.int8(0), "one": np.float32(1), "shape": np.int64([4, 5])}
    report = amct_onnx.convert_qat_model(save(tmp_path, text, **factors), tmp_path / "m")
    assert len(report.converted) == 1


@pytest.mark.parametrize("stored", ["initializer", "Constant", "int8"])
def test_weights_that_are_computed_may_be_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
    """What is allowed grows with what is stored, wherever it stands in the chain: here 16 kB in place of 256 MiB."""
    monkeypatch.setattr(constants, "MAX_COMPUTED_BYTES", 1 << 14)
    weight = np.arange(128 * 128, dtype=np.float32)
    text = "w = Identity(v)"
    if stored == "int8":
        weight, text = weight.astype(np.int8), "w = DequantizeLinear(v, s, z)"
    text = f"""g (float[n,128] x) => (float[n,128] y) {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        {text} r = Reshape(w, shape) h = Mul(r, s) k = QuantizeLinear(h, s, z) wd = DequantizeLinear(k, s, z)
        y = MatMul(d, wd) }}"""
    path = save(tmp_path, text, s=np.float32(1), z=np.int8(0), shape=np.int64([128, 128]), v=weight)
    if stored == "Constant":
        model = onnx.load(path)
        value = model.graph.initializer.pop()
        model.graph.node.insert(0, helper.make_node("Constant", [], ["v"], value=value))
        onnx.save(model, path)
    assert len(amct_onnx.convert_qat_model(path, tmp_path / "m").converted) == 1


@pytest.mark.parametrize("size", [2**60, 10**7])
def test_claimed_length_of_an_activation_costs_nothing(tmp_path: Path, size: int) -> None:
    """Data propagation of onnx's shape inference would make an object for each element of a vector."""
    text = f"""g (float[{size}] x) => (float[m] y) {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        e = Cast <to = 1> (d) r = Reshape(e, shape) wd = DequantizeLinear(w, s, z) h = MatMul(r, wd)
        y = Add(h, s) }}"""
    path = save(tmp_path, text, s=np.float32(1), z=np.int8(0), w=np.ones((4, 4), np.int8), shape=np.int64([-1, 4]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    amct_onnx.convert_qat_model(path, tmp_path / "m")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def test_product_with_a_vector_stays_float(tmp_path: Path) -> None:
    """A MatMul by a vector is legal; it has no output channels."""
    text = """g (float[n,4] x) => (float[n] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        y = MatMul(d, v) }"""
    path = save(tmp_path, text, s=np.float32(1), z=np.int8(0), v=np.float32([0.1, 0.77, 3.3, 0.123]))
    report = amct_onnx.convert_qat_model(path, tmp_path / "m")
    assert [entry.verdict for entry in report.layers] == ["refused"]


def test_kernel_that_contradicts_its_weight(tmp_path: Path) -> None:
    text = """g (float[1,8,5,5] x) => (float[1,1,5,5] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear(w, s, z) y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (d, wd) }"""
    path = save(tmp_path, text, s=np.float32(1), z=np.int8(0), w=np.ones((1, 8, 3, 3, 1), np.int8))
    error_of(path, UnsupportedModelError, r"kernel_shape is \[3, 3\], that of its weight \[3, 3, 1\]")


def test_overload_that_no_function_has(tmp_path: Path) -> None:
    text = """g (float[n] x) => (float[n] y) { q = QuantizeLinear(x, s) d = DequantizeLinear(q, s)
        y = local.f:other(d) }
        <domain: "local", opset_import: ["" : 13]> f (a) => (c) { c = Relu(a) }"""
    error_of(save(tmp_path, text, s=np.float32(1)), ModelFileError, "overload 'other'")


@pytest.mark.parametrize(("of_x", "of_w"), [(1, 0), (0, 1), (3, 4)])
def test_scales_of_a_convolution_with_bias_that_do_not_fit(tmp_path: Path, of_x: int, of_w: int) -> None:
    text = """g (float[1,4,3,3] x) => (float[1,4,3,3] y) { q = QuantizeLinear(x, s, z)
        m = QLinearConv(q, sx, z, w, sw, z, s, z, b) y = DequantizeLinear(m, s, z) }"""
    scales = {"s": np.float32(1), "sx": np.ones(of_x, np.float32), "sw": np.ones(of_w, np.float32)}
    w, b = np.ones((4, 4, 1, 1), np.int8), np.ones(4, np.int32)
    error_of(save(tmp_path, text, z=np.int8(0), w=w, b=b, **scales), FactorError, "scales")


def test_what_onnxruntime_takes_is_not_refused(tmp_path: Path) -> None:
    """Attributes for internal use, and versions of other domains, whatever their owners count."""
    text = """g (float[n,4] x) => (float[n,4] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear(w, s, z) m = MatMul(d, wd) y = Relu <__origin = 3> (m) }"""
    path = save(tmp_path, text, s=np.float32(1), z=np.int8(0), w=np.ones((4, 4), np.int8))
    model = onnx.load(path)
    model.opset_import.extend([helper.make_opsetid("dated", 20260101), helper.make_opsetid("unversioned", 0)])
    onnx.save(model, path)
    report = amct_onnx.convert_qat_model(path, tmp_path / "m")
    assert len(report.converted) == 1
    for file in (path, report.fake_quant_model):
        ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("recursive", [False, True])
def test_functions_that_explode(tmp_path: Path, recursive: bool) -> None:
    """40 levels, each calling the next twice: 2^40 nodes."""
    imports = '<domain: "local", opset_import: ["" : 13, "local" : 1]>'
    levels = [f"{imports} f{i} (a) => (c) {{ b = local.f{i + 1}(a) c = local.f{i + 1}(b) }}" for i in range(40)]
    last = f"{imports} f40 (a) => (c) {{ c = {'local.f0' if recursive else 'Relu'}(a) }}"
    text = """g (float[n] x) => (float[n] y) { q = QuantizeLinear(x, s) d = DequantizeLinear(q, s)
        y = local.f0(d) }\n"""
    path = save(tmp_path, text + "\n".join([*levels, last]), s=np.float32(1))
    error_of(path, UnsupportedModelError, "levels deep|has 10995")


BAD_SCALES = [0.0, -1.0, float("nan"), float("inf")]
FORMS = {
    "qdq": """g (float[n,4] x) => (float[n,4] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear(w, t, z) y = MatMul(d, wd) }""",
    "qoperator": """g (float[n,4] x) => (float[n,4] y) { q = QuantizeLinear(x, s, z)
        m = QLinearMatMul(q, s, z, w, t, z, t, z) y = DequantizeLinear(m, t, z) }""",
    "qonnx": """g (float[n,4] x) => (float[n,4] y) { f = qonnx.custom_op.general.Quant(x, s, zf, bits)
        wd = DequantizeLinear(w, t, z) y = MatMul(f, wd) }""",
}


def form(folder: Path, name: str, **changed: object) -> Path:
    """One layer in the form of a dialect."""
    constants: dict[str, object] = {"s": np.float32(0.1), "t": np.float32(0.5), "w": np.ones((4, 4), np.int8)}
    constants |= {"z": np.int8(0), "zf": np.float32(0), "bits": np.float32(8)} | changed
    read = {n for node in onnx.parser.parse_model(HEADER + FORMS[name]).graph.node for n in node.input}
    return save(folder, FORMS[name], **{k: v for k, v in constants.items() if k in read})


@pytest.mark.parametrize("bad", BAD_SCALES)
@pytest.mark.parametrize("name", FORMS)
def test_scale_that_is_none(tmp_path: Path, name: str, bad: float) -> None:
    error_of(form(tmp_path, name, s=np.float32(bad)), AmctError, r"'s'.*(nan|inf|0\.0|-1\.0)")


@pytest.mark.parametrize("name", FORMS)
def test_subnormal_scale_keeps_the_layer_float(tmp_path: Path, name: str) -> None:
    report = amct_onnx.convert_qat_model(form(tmp_path, name, s=np.float32(1e-45), t=np.float32(0.1)), tmp_path / "m")
    assert [e.reason for e in report.layers] == ["activation-scale-range"]


@pytest.mark.parametrize(("name", "changed"), [
    ("qdq", {"z": np.int8([0, 0, 0])}),
    ("qdq", {"s": np.float32([1, 1, 1])}),
    ("qdq", {"t": np.float32([1, 1, 1])}),
    ("qoperator", {"t": np.float32([1, 1, 1])}),
    ("qonnx", {"s": np.float32([1, 1, 1])}),
    ("qonnx", {"zf": np.float32([0, 0, 0])}),
    ("qonnx", {"bits": np.float32(2.5)}),
])  # fmt: skip
def test_lengths_that_do_not_fit(tmp_path: Path, name: str, changed: dict[str, object]) -> None:
    error_of(form(tmp_path, name, **changed), AmctError, "Node '|node '")


@pytest.mark.parametrize("name", FORMS)
def test_zero_point_of_another_type(tmp_path: Path, name: str) -> None:
    """Float zero points of a Q/DQ pair, or one beyond int8 in QONNX: the message or the reason names the layer."""
    changed: dict[str, object] = {"zf": np.float32(1000.5)} if name == "qonnx" else {"z": np.float32(0.5)}
    try:
        report = amct_onnx.convert_qat_model(form(tmp_path, name, **changed), tmp_path / "m")
    except AmctError as error:
        assert "ode '" in str(error)
    else:
        assert not report.converted


def node_of(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == op_type)


def add_attribute(op_type: str, **attributes: object):  # type: ignore[no-untyped-def]
    def change(model: onnx.ModelProto) -> None:
        node_of(model, op_type).attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())

    return change


@pytest.mark.parametrize(("change", "match"), [
    (lambda m: m.opset_import[0].__setattr__("version", 2**40), "version 1099511627776 of opset"),
    (lambda m: m.opset_import[0].__setattr__("version", -1), "version -1 of opset"),
    (lambda m: node_of(m, "Gemm").input.append("b"), "has 4 inputs; the operator has 2 to 3"),
    (lambda m: node_of(m, "QuantizeLinear").input.__delitem__(slice(1, None)), "has 1 inputs"),
    (lambda m: node_of(m, "QuantizeLinear").output.append("more"), "has 2 outputs; the operator has 1"),
    (lambda m: node_of(m, "Gemm").input.__setitem__(1, ""), "lacks 'B', number 1 of its inputs"),
    (add_attribute("Gemm", colour=1), "the attribute 'colour', which the operator does not know"),
    (add_attribute("DequantizeLinear", block_size="no"), "attribute 'block_size' is of type STRING"),
    (lambda m: node_of(m, "Gemm").attribute[0].__setattr__("ref_attr_name", "outer"), "from a function"),
    (lambda m: m.graph.node.append(helper.make_node("Cast", ["y"], ["y2"], name="c")), "lacks the attribute 'to'"),
])  # fmt: skip
def test_graph_that_contradicts_the_specification(tmp_path: Path, change, match: str) -> None:  # type: ignore[no-untyped-def]
    path = qdq_model(tmp_path)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    message = error_of(path, ModelFileError, match)
    assert str(path) in message


@pytest.mark.parametrize("text", ["model", "graph", "node", "value", "tensor"])
def test_text_that_is_not_utf8(tmp_path: Path, text: str) -> None:
    path = qdq_model(tmp_path)
    model = onnx.load(path)
    graph = model.graph
    holders = {"model": model, "graph": graph, "node": graph.node[0], "value": graph.input[0]}
    holder = {**holders, "tensor": graph.initializer[0]}[text]
    holder.doc_string = "MARK"
    path.write_bytes(model.SerializeToString().replace(b"MARK", b"\xff\xfe\xfd\xfc"))
    error_of(path, ModelFileError, "UTF-8")


@pytest.mark.parametrize("of_axis", [False, True])
def test_denotation_that_is_not_utf8(tmp_path: Path, of_axis: bool) -> None:
    path = qdq_model(tmp_path)
    model = onnx.load(path)
    kind = model.graph.input[0].type
    (kind.tensor_type.shape.dim[0] if of_axis else kind).denotation = "MARK"
    path.write_bytes(model.SerializeToString().replace(b"MARK", b"\xff\xfe\xfd\xfc"))
    error_of(path, ModelFileError, "UTF-8")


@pytest.mark.parametrize("typed", [False, True])
def test_more_dimensions_than_an_array_has(tmp_path: Path, typed: bool) -> None:
    path = qdq_model(tmp_path)
    model = onnx.load(path)
    scale = next(t for t in model.graph.initializer if t.name == "s")
    content = numpy_helper.to_array(scale).reshape(-1)[:1]
    scale.CopyFrom(onnx.TensorProto(name="s", data_type=onnx.TensorProto.FLOAT, dims=[1] * 70))
    if typed:
        scale.float_data.append(float(content[0]))
    else:
        scale.raw_data = content.tobytes()
    onnx.save(model, path)
    error_of(path, ModelFileError, "tensor 's' has 70 dimensions, at most 32 are read")


@pytest.mark.parametrize("domain", ["", "a.company"])
def test_attribute_that_is_not_utf8(tmp_path: Path, domain: str) -> None:
    """Found by fuzzing: the padding mode of a Conv. What a custom operator keeps there is its own business."""
    path = qdq_model(tmp_path)
    model = onnx.load(path)
    holder = helper.make_node("DepthToSpace", ["y"], ["y2"], name="blob", domain=domain, mode=b"\xff\xfe", blocksize=1)
    model.graph.node.append(holder)
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
        model.graph.output.append(helper.make_tensor_value_info("y2", onnx.TensorProto.FLOAT, None))
    onnx.save(model, path)
    if not domain:
        error_of(path, ModelFileError, r"'blob' \(DepthToSpace\) has text that is not UTF-8 in attribute 'mode'")
        return
    report = amct_onnx.convert_qat_model(path, tmp_path / "m")
    for written in (report.deploy_model, report.fake_quant_model):
        kept = next(n for n in onnx.load(written).graph.node if n.name == "blob")
        assert {a.name: a.s for a in kept.attribute}["mode"] == b"\xff\xfe"


def test_weight_of_a_shape_that_no_layer_has(tmp_path: Path) -> None:
    path = qdq_model(tmp_path)
    model = onnx.load(path)
    weight = next(t for t in model.graph.initializer if t.name == "w")
    del weight.dims[:]
    weight.dims.extend([3, 5, 1])
    onnx.save(model, path)
    error_of(path, UnsupportedModelError, r"'gemm' \(Gemm\): its weight 'w' has the shape \[3, 5, 1\]")


def test_scales_that_fit_no_axis_of_the_activation(tmp_path: Path) -> None:
    error_of(qdq_model(tmp_path, scale=[0.1, 0.2]), FactorError, "2 scales do not fit axis 1 of tensor 'x'")


def test_constant_with_inputs_has_no_content(tmp_path: Path) -> None:
    """Computing it from a graph input would never end."""
    text = """g (float[n,4] x) => (float[n,m] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        k = QuantizeLinear(w, s, z) wd = DequantizeLinear(k, s, z) y = MatMul(d, wd) }"""
    path = save(tmp_path, text, s=np.float32(0.1), z=np.int8(0), w=np.ones((4, 4), np.float32))
    model = onnx.load(path)
    model.graph.node[2].op_type = "Constant"
    model.graph.node[2].input[:] = ["x", "s"]
    onnx.save(model, path)
    with pytest.raises(AmctError):
        amct_onnx.convert_qat_model(path, tmp_path / "out" / "m")


def test_zero_point_without_elements(tmp_path: Path) -> None:
    text = "g (float[n,4] x) => (float[n,4] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    path = save(tmp_path, text, s=np.float32(0.1), z=np.zeros(0, np.int8))
    error_of(path, AmctError, "0 zero points for 1 scales")


def test_attribute_without_a_type(tmp_path: Path) -> None:
    text = """g (float[n,4] x) => (float[n,4] y) {
        d = qonnx.custom_op.general.Quant <signed = 1, narrow = 0> (x, s, z, b) y = Relu(d) }"""
    path = save(tmp_path, text, s=np.float32(0.1), z=np.float32(0), b=np.float32(8))
    model = onnx.load(path)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, ["n", 4]))
    model.graph.node[0].attribute[0].ClearField("type")
    model.graph.node[0].attribute[0].ClearField("i")
    onnx.save(model, path)
    error_of(path, AmctError, "'signed'")


def test_a_layer_whose_weight_has_no_axis_costs_nothing(tmp_path: Path) -> None:
    """Found by fuzz/run.py: the cost asked such a weight for its channels."""
    text = (
        "g (float[1, 2, 3, 3] x) => (float[1, 2, 3, 3] y) "
        "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) o = Conv <kernel_shape = [1, 1]> (x, s) }"
    )
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    model.graph.output.append(onnx.ValueInfoProto(name="o"))
    for name, array in (("s", np.float32(0.1)), ("z", np.int8(0))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.save(model, tmp_path / "m.onnx")
    report = amct_onnx.convert_qat_model(tmp_path / "m.onnx", tmp_path / "out")
    assert report.cost is not None and report.cost.unknown == 1
