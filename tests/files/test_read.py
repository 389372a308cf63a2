"""What a model file claims is checked first; external data stays inside the model's folder."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import amct_onnx
from amct_onnx.common.wire_format import field_start
from amct_onnx.errors import AmctError, ModelFileError
from amct_onnx.files import file_tensor, proto_scan
from amct_onnx.files.file_tensor import FileTensor, SourceFile, row_blocks
from amct_onnx.files.read import read_model
from support.small_models import TIDY, qdq_model


def external_model(folder: Path, **entries: str | None) -> Path:
    """The small model with its weight in w.data, some entries of its external data changed (None: left out)."""
    folder.mkdir(exist_ok=True)
    model = onnx.load(qdq_model(folder))
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    (folder / "w.data").write_bytes(bytes(8) + tensor.raw_data)
    values = {"location": "w.data", "offset": "8", "length": str(len(tensor.raw_data))} | entries
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in values.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    path = folder / "source.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("entries", [{}, {"length": None}, {"location": "./w.data"}, {"location": "sub/../w.data"}])
def test_external_data_in_the_folder_is_read(tmp_path: Path, entries: dict[str, str | None]) -> None:
    (tmp_path / "sub").mkdir()
    weight = read_model(external_model(tmp_path, **entries)).graph.initializers["w"].const_value
    expected = next(t for t in onnx.load(qdq_model(tmp_path)).graph.initializer if t.name == "w")
    assert isinstance(weight, FileTensor)
    np.testing.assert_array_equal(weight.numpy(), numpy_helper.to_array(expected))


def test_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    model = external_model(tmp_path, location="link.data")
    (tmp_path / "link.data").symlink_to("w.data")
    assert read_model(model).graph.initializers["w"].const_value.numpy().shape == (3, 5)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../outside"}, "outside the model's folder"),
        ({"location": "sub/../../outside"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "link"}, "outside the model's folder"),
        ({"location": "linked_folder/outside"}, "outside the model's folder"),
        ({"location": ""}, "outside the model's folder"),
        ({"location": "a\0b"}, "outside the model's folder"),
        ({"location": "missing"}, "does not exist"),
        ({"location": "x" * 5000}, "cannot be read"),
        ({"location": "sub"}, "not a regular file"),
        ({"location": "pipe"}, "not a regular file"),
        ({"offset": "9"}, "lies beyond the end"),
        ({"offset": "-1"}, "lies beyond the end|not a valid ONNX model"),
        ({"offset": str(2**63)}, "lies beyond the end"),
        ({"length": "14"}, "lies beyond the end"),
        ({"length": "-15"}, "lies beyond the end|not a valid ONNX model"),
        ({"length": str(2**62)}, "lies beyond the end"),
        ({"offset": "one"}, "not a valid ONNX model"),
    ],
)
def test_external_data_is_refused(tmp_path: Path, entries: dict[str, str | None], message: str) -> None:
    (tmp_path / "outside").write_bytes(bytes(100))
    folder = tmp_path / "model"
    model = external_model(folder, **entries)
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "linked_folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelFileError, match=message) as caught:
        amct_onnx.convert_qat_model(model, tmp_path / "out" / "m")
    assert "'w'" in str(caught.value) or "not a valid" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_device_is_refused(tmp_path: Path) -> None:
    model = external_model(tmp_path)
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    (tmp_path / "w.data").unlink()
    try:
        os.mknod(tmp_path / "w.data", 0o20600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container makes no devices")
    with pytest.raises(ModelFileError, match="regular file|cannot be read"):
        read_model(model)


def test_data_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    weight = read_model(external_model(tmp_path)).graph.initializers["w"].const_value
    os.truncate(tmp_path / "w.data", 10)
    with pytest.raises(ModelFileError, match="truncated"):
        weight.numpy()


def changed(folder: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    path = qdq_model(folder)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def weight_of(model: onnx.ModelProto) -> TensorProto:
    return next(t for t in model.graph.initializer if t.name == "w")


def set_shape(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        del weight_of(model).dims[:]
        weight_of(model).dims.extend(dims)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_shape(2**60), r"'w' holds 15 bytes; its shape \[1152921504606846976\]"),
        (set_shape(2**40, 2**40), "'w' holds 15 bytes"),
        (set_shape(-3, -5), "'w' has the negative dimension -5"),
        (set_shape(4, 5), "'w' holds 15 bytes"),
        (lambda m: weight_of(m).ClearField("raw_data"), "'w' holds 0 elements"),
        (lambda m: weight_of(m).ClearField("data_type"), "'w' has no element type"),
        (lambda m: weight_of(m).__setattr__("data_type", 65), "65 is not a valid DataType"),
        (lambda m: m.graph.node[0].input.__setitem__(0, "ghost"), "reads tensor 'ghost', which nothing defines"),
        (lambda m: m.graph.node[1].output.__setitem__(0, "q"), "'q' is defined twice"),
        (lambda m: m.graph.initializer.append(weight_of(m)), "'w' is defined twice"),
        (lambda m: m.graph.output[0].__setattr__("name", "ghost"), "ghost"),
        (lambda m: m.graph.ClearField("node"), "nothing defines the graph output 'y'"),
        (lambda m: m.graph.ClearField("output"), "graph and outputs"),
        (lambda m: m.ClearField("graph"), "graph and outputs"),
        (
            lambda m: m.graph.node[3].attribute[0].CopyFrom(helper.make_attribute("alpha", "one")),
            "attribute 'alpha' is of type STRING",
        ),
        (lambda m: m.graph.sparse_initializer.add().values.__setattr__("name", "few"), "'few' is sparse"),
        (
            lambda m: m.graph.node[0].attribute.append(
                helper.make_attribute(
                    "few",
                    helper.make_sparse_tensor(
                        helper.make_tensor("v", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [0]), [4]
                    ),
                )
            ),
            "sparse tensor or a map in a node",
        ),
    ],
)
def test_malformed_graph_is_refused(tmp_path: Path, change: Callable[[onnx.ModelProto], object], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        amct_onnx.convert_qat_model(changed(tmp_path, change), tmp_path / "m")
    assert not (tmp_path / "m_quant.json").exists()


def test_claimed_size_costs_nothing(tmp_path: Path) -> None:
    model = changed(tmp_path, set_shape(2**60))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelFileError):
        read_model(model)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    )  # kB; room for what other code allocates


def field(number: int, content: bytes) -> bytes:
    return field_start(number, len(content)) + content


def nested(depth: int) -> bytes:
    """A model whose graphs lie in attributes of nodes of graphs."""
    content = b"\0" * (proto_scan.CUT_BYTES + 1)
    for _ in range(depth):
        content = field(1, field(5, field(6, content)))
    return field(7, content)


@pytest.mark.parametrize(
    "content",
    [
        nested(200),
        field(7, b"\x0a" + b"\xff" * 12),
        field(7, field(1, bytes(70_000))),
        field(7, b"\x0b"),
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\xff" * 100,
        b"\x00" * 100,
        field(8, b"\xff\xfe") * 50_000,
        field(6, b"x" * 5_000_000),
    ],
)
def test_malformed_protobuf_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="bad.onnx"):
        read_model(path)


def test_every_truncation_is_one_error(tmp_path: Path) -> None:
    content = qdq_model(tmp_path).read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(AmctError):
            read_model(path)


def test_bit_flips_give_a_model_or_one_error(tmp_path: Path) -> None:
    """Seeded; the reader raises nothing but errors of the package."""
    content = TIDY.read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.onnx"
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), rng.integers(1, 8)):
            damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_model(path)
        except AmctError:
            refused += 1
    assert refused > 10


def large_model(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Tensors above and below the cut: raw_data, typed fields, inside a Constant and a subgraph."""
    rng = np.random.default_rng(0)
    arrays = {
        "raw": rng.normal(size=(300, 100)).astype(np.float32),
        "typed": rng.normal(size=(300, 100)).astype(np.float32),
        "integers": rng.integers(-9, 9, (40_000,)),
        "half": rng.normal(size=(50_000,)).astype(np.float16),
        "small": np.arange(5, dtype=np.float32),
        "constant": rng.normal(size=(30_000,)).astype(np.float32),
        "inner": rng.normal(size=(30_000,)).astype(np.float32),
    }
    tensors = {k: numpy_helper.from_array(v, k) for k, v in arrays.items()}
    tensors["typed"] = helper.make_tensor("typed", TensorProto.FLOAT, (300, 100), arrays["typed"].reshape(-1))
    tensors["integers"] = helper.make_tensor("integers", TensorProto.INT64, (40_000,), arrays["integers"])
    body = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["i"])],
        "body",
        [],
        [helper.make_tensor_value_info("i", TensorProto.FLOAT, None)],
        [tensors["inner"]],
    )
    nodes = [
        helper.make_node("Constant", [], ["constant"], value=tensors["constant"], name="constant"),
        helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body, name="if"),
    ]
    names = ("raw", "typed", "integers", "half", "small")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensors[n] for n in names],
    )
    path = folder / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path, arrays


def test_large_tensors_stay_in_the_file(tmp_path: Path) -> None:
    path, arrays = large_model(tmp_path)
    model = read_model(path)
    found = {n: v.const_value for n, v in model.graph.initializers.items()}
    constant, branch = list(model.graph)
    found["constant"] = constant.attributes["value"].as_tensor()
    found["inner"] = branch.attributes["then_branch"].as_graph().initializers["inner"].const_value
    assert {n for n, t in found.items() if isinstance(t, FileTensor)} == {"raw", "typed", "half", "constant", "inner"}
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.numpy(), arrays[name], err_msg=name)
        parts = [part.reshape(-1).copy() for _, part in row_blocks(tensor)]
        np.testing.assert_array_equal(np.concatenate(parts), arrays[name].reshape(-1), err_msg=name)
    expected = onnx.load(path)
    assert onnx.numpy_helper.to_array(ir.to_proto(model).graph.initializer[0]).tobytes() == arrays["raw"].tobytes()
    assert len(ir.to_proto(model).graph.initializer) == len(expected.graph.initializer)


@pytest.mark.parametrize("block", [file_tensor.BLOCK_BYTES, 150_000, 1200, 40])
@pytest.mark.parametrize("shape", [(1, 300, 100), (3, 40, 250), (30_000,), (2, 1, 1, 15_000), (30_000, 1)])
def test_blocks_of_any_shape_are_consecutive_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], block: int
) -> None:
    """Also where one row of axis 0 is larger than a block."""
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (tmp_path / "raw").write_bytes(array.tobytes())
    tensor = FileTensor(ir.tensor(array), SourceFile(tmp_path / "raw"), 0)
    monkeypatch.setattr(file_tensor, "BLOCK_BYTES", block)
    found, order = np.full(shape, np.nan, np.float32), []
    for index, part in row_blocks(tensor):
        assert part.nbytes <= block
        found[index] = part
        order.append(part.copy())
    np.testing.assert_array_equal(found, array)
    assert b"".join(part.tobytes() for part in order) == array.tobytes()


def test_name_that_no_file_can_have(tmp_path: Path) -> None:
    """Like a folder that may not be searched, it fails when it is looked up, before it is opened."""
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_model(tmp_path / f"{'m' * 300}.onnx")
