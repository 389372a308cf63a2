"""A model as the bytes of its file, for a session: weights are copied one by one, and other threads run meanwhile.

Protobuf's own serialisation of a large model stops the whole program for seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from amct_onnx.files.compose import compose
from amct_onnx.files.write import blocks_of


def model_bytes(model: ir.Model) -> bytes:
    """The bytes of a model whose weights are within one file.

    Args:
        model: is read, not changed; at most ``INLINE_LIMIT`` bytes of weights.
    """
    composition = compose(model, Path("a model in memory"))
    assert not composition.external
    content = np.empty(composition.size, np.uint8)
    for position, part in composition.head:
        content[position : position + len(part)] = np.frombuffer(part, np.uint8)
    for piece in composition.inline:
        position = piece.position
        for block in blocks_of(piece.tensor):
            flat = block.reshape(-1).view(np.uint8)
            content[position : position + flat.size] = flat
            position += flat.size
    return content.tobytes()
