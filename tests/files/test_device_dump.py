"""Raw dumps: what they hold is read back, and what they claim is believed as far as the file reaches."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_onnx.files.device_dump import DumpError, read_dump
from support.device_dumps import Tensor, dump, number, text, varint, write_dump

PATH = Path("Conv2D.conv1.3.7.1700000000000000")
RNG = np.random.default_rng(5)


def test_everything_is_read_back() -> None:
    x = RNG.integers(-128, 128, (1, 1, 4, 4, 32)).astype(np.int8)
    y = RNG.normal(size=(1, 1, 4, 4, 16)).astype(np.float16)
    z = RNG.normal(size=(3,)).astype(np.float32)
    outputs = [Tensor(y, "NC1HWC0", (1, 9, 4, 4), ("a/conv1", 2)), Tensor(z)]
    write_dump(PATH, [Tensor(x, "NC1HWC0", (1, 20, 4, 4))], outputs, "conv1")
    first, second, third = read_dump(PATH)
    assert (first.end, first.index, first.layout, first.op_name) == ("input", 0, "NC1HWC0", "conv1")
    assert (first.shape, first.original_shape, first.original) == ((1, 1, 4, 4, 32), (1, 20, 4, 4), None)
    assert (second.end, second.original, second.original_shape) == ("output", ("a/conv1", 2), (1, 9, 4, 4))
    for tensor, array in ((first, x), (second, y), (third, z)):
        found = tensor.numbers()
        assert found.dtype == array.dtype and np.array_equal(found, array)


def test_bfloat16_and_subformats() -> None:
    exact = np.array([1.0, -2.5, 0.0078125, np.inf], np.float32)
    halves = (exact.view(np.uint32) >> 16).astype(np.uint16)
    write_dump(PATH, [], [Tensor(halves, fields={"data_type": 27, "format": 3 | 7 << 8})])
    (tensor,) = read_dump(PATH)
    assert tensor.layout == "NC1HWC0" and np.array_equal(tensor.numbers(), exact)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "header of 0 bytes"),
        (b"\x01", "header"),
        ((1 << 62).to_bytes(8, "little") + b"x" * 100, "header"),
        ((100).to_bytes(8, "little") + b"x" * 99, "header"),
        ((3).to_bytes(8, "little") + b"\x0a\xff\xff", "not a dump"),
        ((5).to_bytes(8, "little") + text(1, b"1.0"), "0 tensors"),
        (dump([], [Tensor(np.zeros(4, np.int8), fields={"size": 5})]), "claims 5 bytes, 4 are left"),
        (dump([], [Tensor(np.zeros(4, np.int8), fields={"size": 2**63})]), "claims"),
    ],
)
def test_files_that_are_no_dumps(content: bytes, words: str) -> None:
    PATH.write_bytes(content)
    with pytest.raises(DumpError, match=words):
        read_dump(PATH)


def test_shapes_and_types_that_the_numbers_do_not_fill() -> None:
    cases = [
        (Tensor(np.zeros(4, np.int8), fields={"data_type": 7}), "has 4 bytes only"),
        (Tensor(np.zeros(4, np.int8), fields={"data_type": 13}), "element type 13"),
    ]
    for tensor, words in cases:
        write_dump(PATH, [], [tensor])
        with pytest.raises(DumpError, match=words):
            read_dump(PATH)[0].numbers()


def test_claims_cost_nothing() -> None:
    dims = b"".join(varint(n) for n in (2**40, 2**40))
    message = number(1, 1) + text(3, text(1, dims)) + number(6, 4)
    header = text(3, message)
    many = text(3, b"") * 100_000
    deep = text(3, text(3, text(1, b"\x01" * 100_000)))
    tracemalloc.start()
    PATH.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (tensor,) = read_dump(PATH)
    with pytest.raises(DumpError, match="bytes only"):
        tensor.numbers()
    for content, words in ((many, "100000 tensors"), (deep, "100000 dimensions")):
        PATH.write_bytes(len(content).to_bytes(8, "little") + content)
        with pytest.raises(DumpError, match=words):
            read_dump(PATH)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_dumps_end_in_one_error(data: st.DataObject) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    content = bytearray(dump([Tensor(x)], [Tensor(x, "NCHW", (3, 4), ("n", 0))], "op"))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    PATH.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        for tensor in read_dump(PATH):
            tensor.numbers()
    except DumpError:
        pass
