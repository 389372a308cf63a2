"""Files that are not binary ONNX models, told by their first bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

HEAD_BYTES = 4096
RANDOM_BITS = 7.5
"""Entropy per byte from which 4 kB are encrypted or compressed; weights and graphs have less."""

EXPORT = "Export the model as ONNX from the framework that it comes from."
BINARY = 'Write it in binary: onnx.save(onnx.load(path, format="{}"), "model.onnx").'
UNPACK = "Unpack it and give the .onnx file within."


class FileKind(NamedTuple):
    """What a file is, and what to do with it."""

    name: str
    remedy: str


SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it stands for", "Run `git lfs pull` beside it."),
    (4, b"ORTM", "a model in ONNX Runtime's own .ort format", "Give the .onnx model that it was made from."),
    (4, b"TFL3", "a TensorFlow Lite model", "Convert it to ONNX first, for instance with tf2onnx --tflite."),
    (0, b"IMOD", "an offline model (.om) that ATC has compiled", "Give the .onnx model that it was compiled from."),
    (0, b"\x1f\x8b", "compressed with gzip", UNPACK),
    (0, b"BZh", "compressed with bzip2", UNPACK),
    (0, b"\xfd7zXZ\0", "compressed with xz", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Salted__", "encrypted with openssl", "Decrypt it, and give the .onnx file within."),
    (0, b"age-encryption.org", "encrypted with age", "Decrypt it, and give the .onnx file within."),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes", EXPORT),
    (0, b"\x93NUMPY", "a NumPy array", "Give the .onnx model; arrays are data."),
    (0, b"GGUF", "a GGUF model", EXPORT),
    (0, b"ftrt", "a TensorRT engine", "Give the .onnx model that it was built from."),
    (0, b"%PDF", "a PDF document", EXPORT),
    (0, b"\x7fELF", "a program or library", EXPORT),
)
"""Offset, bytes, what the file is, what to do."""
PICKLE = re.compile(rb"\x80[\x02-\x05]")
TEXT_FIELD = re.compile(
    rb"\s*(#[^\n]*\n\s*)*(ir_version|opset_import|producer_name|producer_version|model_version|graph|domain|doc_string)"
    rb"\s*[:{]"
)
ONNX_TEXT = re.compile(rb"\s*<\s*\n?\s*ir_version\s*:")
GRAPH_DEF = re.compile(rb"\x0a.{1,5}\x0a[\x01-\x7f][ -~]+\x12[\x01-\x7f][A-Z][A-Za-z0-9]+", re.DOTALL)
"""TensorFlow: a node with a name and an operator is the first field."""


def file_kind(head: bytes, size: int) -> FileKind | None:
    """What a file is that could not be read as a model, and what to do; None where its first bytes do not tell.

    Args:
        head: its first HEAD_BYTES.
        size: of the file, in bytes.
    """
    if not size:
        return FileKind("an empty file", "Export or download the model again.")
    if not any(head):
        return FileKind("a file that begins with zeros only: a copy that was not finished", "Copy it again.")
    for offset, signature, what, remedy in SIGNATURES:
        if head[offset:].startswith(signature):
            return FileKind(what, remedy)
    return _archive(head) or _text(head) or _protobuf(head) or _random(head)


def _archive(head: bytes) -> FileKind | None:
    if head.startswith(b"PK\x03\x04"):
        if b"/data.pkl" in head or b"archive/" in head[:64]:
            return FileKind("a PyTorch checkpoint", "Export the model with torch.onnx.export.")
        return FileKind("a zip archive", UNPACK)
    if PICKLE.match(head):
        return FileKind("a Python pickle, as older PyTorch checkpoints are", "Export the model with torch.onnx.export.")
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30:
        return FileKind("a safetensors file: weights without a graph", EXPORT)
    return None


def _text(head: bytes) -> FileKind | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = start[:512].lower()
    if TEXT_FIELD.match(start):
        return FileKind(
            "a model as protobuf text",
            'Write it in binary: onnx.save(onnx.load(path, format="textproto"), "m.onnx").',
        )
    if ONNX_TEXT.match(start):
        return FileKind(
            "a model in ONNX's text syntax",
            'Write it in binary: onnx.save(onnx.load(path, format="onnxtxt"), "m.onnx").',
        )
    if lower.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return FileKind("an HTML page: the download gave a web page", "Download the file itself (on GitHub: 'raw').")
    if lower.startswith((b"<?xml", b"<net")):
        return FileKind("XML, as OpenVINO's graphs are", EXPORT)
    if start[:1] in (b"{", b"["):
        if b'"irVersion"' in head or b'"opsetImport"' in head:
            return FileKind("a model as JSON", BINARY.format("json"))
        return FileKind("JSON", "Give the .onnx model, or read what the text says: downloads report their errors so.")
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    if printable == len(head):
        return FileKind("a text file", "Give the .onnx model.")
    return None


def _protobuf(head: bytes) -> FileKind | None:
    remedy = "Convert it to ONNX first, for instance with tf2onnx."
    if GRAPH_DEF.match(head):
        return FileKind("a TensorFlow graph (GraphDef)", remedy)
    if b"\x22" in head and b"tensorflow" in head.lower() and head[:1] in (b"\x08", b"\x0a"):
        return FileKind("a TensorFlow SavedModel", remedy)
    return None


def _random(head: bytes) -> FileKind | None:
    if len(head) < HEAD_BYTES:
        return None
    counts = np.bincount(np.frombuffer(head, np.uint8), minlength=256)
    shares = counts[counts > 0] / len(head)
    if float(-(shares * np.log2(shares)).sum()) < RANDOM_BITS:
        return None
    return FileKind(
        "encrypted, or compressed in a format that is not known here: its bytes look random",
        "Decrypt or unpack it, and give the .onnx file within.",
    )
