"""Files that are not binary ONNX models, told by their first bytes."""

from __future__ import annotations

import re

import numpy as np

from amct_onnx.files.bare_messages import bare_message
from amct_onnx.files.file_tensor import SourceFile
from amct_onnx.files.signatures import ARRAYS, EXPORT, MADE_FROM, SIGNATURES, UNPACK, FileKind

HEAD_BYTES = 4096
RANDOM_BITS = 7.5
"""Entropy per byte from which 4 kB are encrypted or compressed; weights and graphs have less."""

BINARY = 'Write it in binary: onnx.save(onnx.load(path, format="{}"), "model.onnx").'
TORCH = "Export the model with torch.onnx.export."
GIVE = "Give the .onnx model."
MODEL_TAGS = (0x08, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72, 0xA2, 0xCA, 0xD2)
"""First bytes of the fields of a ModelProto; a file that begins otherwise is none."""


PICKLE = re.compile(rb"\x80[\x02-\x05]|[(}\]]q\x00|\(lp\d*\n|\(dp\d*\n|c[a-z_.]+\n[A-Za-z_]+\n")
"""Protocols 2 to 5, then 0 and 1, which have no header."""
TEXT_FIELD = re.compile(
    rb"\s*(#[^\n]*\n\s*)*(ir_version|opset_import|producer_name|producer_version|model_version|graph|domain|doc_string)"
    rb"\s*[:{]"
)
ONNX_TEXT = re.compile(rb"\s*<\s*\n?\s*ir_version\s*:")
CAFFE_TEXT = re.compile(
    rb'\s*(#[^\n]*\n\s*)*(name\s*:\s*"[^"]*"\s*)?(input\s*:|input_dim\s*:|input_shape|layers?\s*\{)'
)
GRAPH_DEF = re.compile(rb"\x0a.{1,5}\x0a[\x01-\x7f][ -~]+\x12[\x01-\x7f][A-Z][A-Za-z0-9]+", re.DOTALL)
"""TensorFlow: a node with a name and an operator is the first field."""
CAFFE_MODEL = re.compile(rb"\x0a[\x01-\x7f][ -~]+(\x12|\xa2\x06).{1,5}\x0a[\x01-\x7f][ -~]+", re.DOTALL)
"""Caffe: the net's name, then a layer that begins with its name."""


def file_kind(source: SourceFile) -> FileKind | None:
    """What a file is that could not be read as a model, and what to do; None where it may be a damaged model."""
    head = bytes(source.read(0, min(source.size, HEAD_BYTES)))
    if not head:
        return FileKind("an empty file", "Export or download the model again.")
    if not any(head):
        return FileKind("a file that begins with zeros only: a copy that was not finished", "Copy it again.")
    for offset, signature, what, remedy in SIGNATURES:
        if head[offset:].startswith(signature):
            return FileKind(what, remedy)
    known = _archive(head) or _text(head) or _protobuf(head) or bare_message(source)
    return known or _random(head) or _other(head, source.size)


def _archive(head: bytes) -> FileKind | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if b"/data.pkl" in head or b"archive/" in head[:64]:
            return FileKind("a PyTorch checkpoint", TORCH)
        if b"/archive_format" in head or b"serialized_exported_program" in head:
            return FileKind("a program of torch.export (.pt2)", TORCH)
        if b"model.weights.h5" in head or head[30:43] == b"metadata.json":
            return FileKind("a Keras model (.keras)", EXPORT)
        if b".npy" in head[30:300]:
            return FileKind("NumPy arrays (.npz)", ARRAYS)
        return FileKind("a zip archive", UNPACK)
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30:
        return FileKind("a safetensors file: weights without a graph", EXPORT)
    if PICKLE.match(head):
        return FileKind("a Python pickle, as older PyTorch checkpoints are", TORCH)
    return None


def _text(head: bytes) -> FileKind | None:
    decoded = _decoded(head)
    if decoded is None:
        return None
    start = decoded.lstrip().encode()
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
        return FileKind("a graph of OpenVINO (XML)" if b"<net" in lower else "XML", EXPORT)
    if start[:1] in (b"{", b"["):
        if b'"irVersion"' in start or b'"opsetImport"' in start:
            return FileKind("a model as JSON", BINARY.format("json"))
        return FileKind("JSON", "Give the .onnx model, or read what the text says: downloads report their errors so.")
    if CAFFE_TEXT.match(start):
        return FileKind("a Caffe network (.prototxt)", EXPORT)
    if start.startswith(b"7767517"):
        return FileKind("a network of ncnn or pnnx (.param)", MADE_FROM)
    if re.match(rb"(//[^\n]*\n\s*)*(module\b|#\w+ = )", start) and b"func" in start:
        return FileKind("a program in MLIR's text syntax", EXPORT)
    if start.startswith(b"-----BEGIN PGP"):
        return FileKind("encrypted with PGP", "Decrypt it, and give the .onnx file within.")
    return FileKind("a text file", GIVE)


def _decoded(head: bytes) -> str | None:
    """The text that a file holds, in UTF-8 or UTF-16; None for one that holds no text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif len(head) > 3 and not any(head[1::2]):
        encoding = "utf-16-le"
    elif len(head) > 3 and not any(head[::2]):
        encoding = "utf-16-be"
    else:
        encoding = "utf-8-sig"
    for cut in range(4):  # the head may end within a character
        try:
            text = head[: len(head) - cut].decode(encoding)
        except UnicodeDecodeError:
            continue
        control = sum(ord(c) < 32 and c not in "\t\r\n\f" or ord(c) == 127 for c in text)
        return text if text.strip() and not control else None
    return None


def _protobuf(head: bytes) -> FileKind | None:
    remedy = "Convert it to ONNX first, for instance with tf2onnx."
    if GRAPH_DEF.match(head):
        return FileKind("a TensorFlow graph (GraphDef)", remedy)
    if b"\x22" in head and b"tensorflow" in head.lower() and head[:1] in (b"\x08", b"\x0a"):
        return FileKind("a TensorFlow SavedModel", remedy)
    if head[:1] == b"\x0a" and b"MindSpore" in head[:64]:
        return FileKind("a MindSpore model (MindIR)", "Export the model from MindSpore as ONNX.")
    if head[:1] == b"\x0a" and b"\x04feed" in head:
        return FileKind("a Paddle program (.pdmodel)", "Convert it to ONNX first with paddle2onnx.")
    if CAFFE_MODEL.match(head) and b"\x12" in head:
        return FileKind("a Caffe network with its weights (.caffemodel)", EXPORT)
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


def _other(head: bytes, size: int) -> FileKind | None:
    """What no field of a model begins."""
    if head[0] in MODEL_TAGS:
        return None
    begins = head[:4].hex(" ")
    return FileKind(f"of a format that is not known here (size {size}, first bytes {begins})", GIVE)
