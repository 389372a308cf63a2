"""What a model says of its inputs: name, shape and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amct_onnx.errors import DataError

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int16)": np.int16,
    "tensor(uint16)": np.uint16,
    "tensor(int32)": np.int32,
    "tensor(uint32)": np.uint32,
    "tensor(int64)": np.int64,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}
"""onnxruntime's type name -> numpy's type."""


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: name of the input.
        shape: an int for a fixed dimension, anything else for a free one; () also when the rank is unknown.
        dtype: numpy's.
    """

    name: str
    shape: tuple[Any, ...]
    dtype: np.dtype[Any]

    @property
    def batch(self) -> int | None:
        """The fixed first dimension, or None."""
        return self.shape[0] if self.shape and isinstance(self.shape[0], int) else None

    @property
    def shape_text(self) -> str:
        """As users read it: [N, 3, 224, 224]."""
        return f"[{', '.join(str(n) if n is not None else '?' for n in self.shape)}]"

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of that shape may be fed."""
        if not self.shape:
            return True
        return len(shape) == len(self.shape) and all(
            not isinstance(want, int) or want == have for want, have in zip(self.shape, shape, strict=True)
        )


def specs_of(session: Any) -> tuple[InputSpec, ...]:
    """The inputs of an onnxruntime session or a DeploySession.

    Raises:
        DataError: An input of a type that no file format here holds.
    """
    specs = []
    for node in session.get_inputs():
        if node.type not in DTYPES:
            raise DataError(
                f"Input '{node.name}' is a {node.type}, which no data file can hold. "
                "Export the model with tensors as inputs."
            )
        specs.append(InputSpec(node.name, tuple(node.shape), np.dtype(DTYPES[node.type])))
    return tuple(specs)
