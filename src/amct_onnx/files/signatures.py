"""First bytes of formats that are given for ONNX models, and what to do with each."""

from __future__ import annotations

from typing import NamedTuple

EXPORT = "Export the model as ONNX from the framework that it comes from."
UNPACK = "Unpack it and give the .onnx file within."
DECRYPT = "Decrypt it, and give the .onnx file within."
MADE_FROM = "Give the .onnx model that it was made from."
ARRAYS = "Give the .onnx model; arrays are data."


class FileKind(NamedTuple):
    """What a file is, and what to do with it."""

    name: str
    remedy: str


SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it stands for", "Run `git lfs pull` beside it."),
    # models of other tools
    (4, b"ORTM", "a model in ONNX Runtime's own .ort format", MADE_FROM),
    (4, b"TFL3", "a TensorFlow Lite model", "Convert it to ONNX first, for instance with tf2onnx --tflite."),
    (4, b"CIR0", "a model of ONE (.circle)", MADE_FROM),
    (4, b"ET12", "a program of ExecuTorch (.pte)", "Export the model with torch.onnx.export."),
    (0, b"IMOD", "an offline model (.om) that ATC has compiled", "Give the .onnx model that it was compiled from."),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes", EXPORT),
    (0, b"GGUF", "a GGUF model", EXPORT),
    (0, b"lmgg", "a GGML model", EXPORT),
    (0, b"ftrt", "a TensorRT engine", "Give the .onnx model that it was built from."),
    (0, b"ptrt", "a TensorRT engine", "Give the .onnx model that it was built from."),
    (0, b"RKNN", "a model for Rockchip's NPU (.rknn)", MADE_FROM),
    (4, b"RKNN", "a model for Rockchip's NPU (.rknn)", MADE_FROM),
    (0, b"\xdd\x85\x76\x00", "a network of ncnn (.param.bin)", MADE_FROM),
    (0, b"\x47\x6b\x30\x01", "weights of ncnn (.bin)", MADE_FROM),
    (0, b"ML\xefR", "a program in MLIR's bytecode", EXPORT),
    (0, b"BC\xc0\xde", "bitcode of LLVM", EXPORT),
    (0, b"\x93NUMPY", "a NumPy array", ARRAYS),
    (0, b"PAR1", "a table (Parquet)", ARRAYS),
    (0, b"SQLite format 3", "an SQLite database", EXPORT),
    # archives
    (0, b"\x1f\x8b", "compressed with gzip", UNPACK),
    (0, b"\x1f\x9d", "compressed with compress (.Z)", UNPACK),
    (0, b"BZh", "compressed with bzip2", UNPACK),
    (0, b"\xfd7zXZ\0", "compressed with xz", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    # encrypted
    (0, b"Salted__", "encrypted with openssl", DECRYPT),
    (0, b"age-encryption.org", "encrypted with age", DECRYPT),
    # documents, images, programs
    (0, b"%PDF", "a PDF document", EXPORT),
    (0, b"\xff\xd8\xff", "an image (JPEG)", "Give the .onnx model."),
    (0, b"\x89PNG", "an image (PNG)", "Give the .onnx model."),
    (0, b"\x7fELF", "a program or library", EXPORT),
    (0, b"MZ\x90", "a program or library", EXPORT),
    (0, b"\xcf\xfa\xed\xfe", "a program or library", EXPORT),
)
"""Offset, bytes, what the file is, what to do."""
