"""The exceptions of the package; each also derives from the natural built-in one."""

from __future__ import annotations


class AmctError(Exception):
    """Base of every error that the package raises on purpose (exit code 2)."""


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
