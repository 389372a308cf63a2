"""Element types that the parser knows, by ONNX's names.

Source: ge: parser/parser/onnx/onnx_util.cc (onnx_data_type_map), onnx_constant_parser.cc (datatype_val_size_map).
"""

from __future__ import annotations

CONSTANT_TYPES = frozenset(
    """
    FLOAT UINT8 INT8 UINT16 INT16 INT32 INT64 STRING BOOL FLOAT16 DOUBLE UINT32 UINT64 COMPLEX64 COMPLEX128 BFLOAT16
    """.split()
)
"""Of constants inside the file."""
DESCRIBED_TYPES = CONSTANT_TYPES | {"FLOAT8E5M2", "FLOAT8E4M3FN"}
"""Of graph inputs, and of constants outside the file."""
MASTER_TYPES = frozenset({"INT4"})
"""Of all three, in compilers after 9.1."""
