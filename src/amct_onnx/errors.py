"""The exceptions of the package; each also derives from the natural built-in one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

PARAMETERS = {
    "convert": "convert_qat_model",
    "device": "devices",
    "dump": "dump_layers",
    "float": "float_model",
    "format": "file_format",
    "from_record": "convert_model",
    "resume": "resume=True",
    **{f"image_{n}": f"ImageOptions.{n}" for n in "resize crop mean std scale layout color filter".split()},
    **{
        n: n
        for n in (
            "act_matmul aipp asymmetric_weights batch_size board comparable_dumps dask data evaluator export_inputs "
            "fake_quant_weights feeds first_layer gemm_per_channel grid_weights input_shape input_type insert_op_conf "
            "labels max_drop record_file residual_quantizers save_path state_file threads"
        ).split()
    },
}
"""Options that messages name, and what a Python user types in their place."""
_OPTION = re.compile(r"(?<!\w)'[^']*'|(?<![\w-])--(?P<name>[a-z][a-z_]*)(?![\w-])")
"""What stands in quotes is a command or a name, and stays."""
_typed: list[bool] = []


@contextmanager
def command_line() -> Iterator[None]:
    """Messages name options as they are typed there, no longer the parameters of Python."""
    _typed.append(True)
    try:
        yield
    finally:
        _typed.pop()


def on_command_line() -> bool:
    """Whether what runs was typed as a command."""
    return bool(_typed)


def as_typed(text: str) -> str:
    """A text that names options as ``--save_path``, with the names that the user of the moment types."""
    if on_command_line():
        return text
    return _OPTION.sub(lambda m: m[0] if m["name"] is None else PARAMETERS.get(m["name"], m[0]), text)


class AmctError(Exception):
    """Base of every error that the package raises on purpose (exit code 2)."""

    def __str__(self) -> str:
        """The message, with options as the user types them."""
        return as_typed(super().__str__())


class ModelFileError(AmctError, ValueError):
    """The model file is not a readable ONNX model."""


class ModelNotFoundError(AmctError, FileNotFoundError):
    """The model file does not exist."""


class NoQuantizerError(AmctError, ValueError):
    """The model holds no QuantizeLinear or DequantizeLinear at all."""


class FactorError(AmctError, ValueError):
    """A quantizer's scale or zero point is unusable."""


class UnsupportedModelError(AmctError, ValueError):
    """The model holds something that cannot be expressed in the output files."""


class OutputError(AmctError, OSError):
    """The outputs could not be written; earlier outputs are untouched."""


class DataError(AmctError, ValueError):
    """A data file is missing, unreadable, or does not fit the model's inputs."""


class SettingError(AmctError, ValueError):
    """A log level or another setting has a value that it cannot have."""
