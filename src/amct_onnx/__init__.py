"""Turn QAT ONNX models into Ascend deploy models; heavy libraries are imported on first use (PEP 562)."""

from __future__ import annotations

from amct_onnx.common.telemetry import switch_off

switch_off()  # before any module imports onnxruntime

TYPE_CHECKING = False  # as good as typing's for type checkers, without its import time
if TYPE_CHECKING:
    from typing import Any

    from amct_onnx.common.log import set_logging_level
    from amct_onnx.common.onnxruntime_session import AMCT_SO
    from amct_onnx.data.images import ImageOptions
    from amct_onnx.data.open_data import open_data
    from amct_onnx.data.source import DataSource
    from amct_onnx.device.session import DeploySession
    from amct_onnx.errors import (
        AmctError,
        DataError,
        FactorError,
        ModelFileError,
        ModelNotFoundError,
        NoQuantizerError,
        OutputError,
        SettingError,
        UnsupportedModelError,
    )
    from amct_onnx.verbs.atc.command_line import AtcCommand, atc_command
    from amct_onnx.verbs.bias.quantize_bias import quantize_bias
    from amct_onnx.verbs.bias.report import BiasReport
    from amct_onnx.verbs.check.checker import check
    from amct_onnx.verbs.check.report import CheckReport, Finding
    from amct_onnx.verbs.compare.compare import compare
    from amct_onnx.verbs.compare.report import CompareReport
    from amct_onnx.verbs.convert.convert_model import convert_model as convert_model
    from amct_onnx.verbs.convert.convert_model import convert_qat_model
    from amct_onnx.verbs.convert.report import ConversionReport
    from amct_onnx.verbs.demo.files import demo_files
    from amct_onnx.verbs.doctor.doctor import doctor
    from amct_onnx.verbs.doctor.report import DoctorReport
    from amct_onnx.verbs.simulate.simulate import Simulation, simulate

__version__ = "0.2.0"
__all__ = [
    "AMCT_SO",
    "AmctError",
    "AtcCommand",
    "BiasReport",
    "CheckReport",
    "CompareReport",
    "ConversionReport",
    "DataError",
    "DataSource",
    "DeploySession",
    "DoctorReport",
    "FactorError",
    "Finding",
    "ImageOptions",
    "ModelFileError",
    "ModelNotFoundError",
    "NoQuantizerError",
    "OutputError",
    "SettingError",
    "Simulation",
    "UnsupportedModelError",
    "__version__",
    "atc_command",
    "check",
    "compare",
    "convert_qat_model",
    "demo_files",
    "doctor",
    "open_data",
    "quantize_bias",
    "set_logging_level",
    "simulate",
]
_HOMES = {
    "atc_command": "amct_onnx.verbs.atc.command_line",
    "AtcCommand": "amct_onnx.verbs.atc.command_line",
    "simulate": "amct_onnx.verbs.simulate.simulate",
    "Simulation": "amct_onnx.verbs.simulate.simulate",
    "check": "amct_onnx.verbs.check.checker",
    "CheckReport": "amct_onnx.verbs.check.report",
    "Finding": "amct_onnx.verbs.check.report",
    "compare": "amct_onnx.verbs.compare.compare",
    "CompareReport": "amct_onnx.verbs.compare.report",
    "convert_qat_model": "amct_onnx.verbs.convert.convert_model",
    "DeploySession": "amct_onnx.device.session",
    "demo_files": "amct_onnx.verbs.demo.files",
    "open_data": "amct_onnx.data.open_data",
    "ImageOptions": "amct_onnx.data.images",
    "DataSource": "amct_onnx.data.source",
    "quantize_bias": "amct_onnx.verbs.bias.quantize_bias",
    "BiasReport": "amct_onnx.verbs.bias.report",
    "doctor": "amct_onnx.verbs.doctor.doctor",
    "DoctorReport": "amct_onnx.verbs.doctor.report",
    "set_logging_level": "amct_onnx.common.log",
    "ConversionReport": "amct_onnx.verbs.convert.report",
    "AMCT_SO": "amct_onnx.common.onnxruntime_session",
    "AmctError": "amct_onnx.errors",
    "DataError": "amct_onnx.errors",
    "FactorError": "amct_onnx.errors",
    "ModelFileError": "amct_onnx.errors",
    "ModelNotFoundError": "amct_onnx.errors",
    "NoQuantizerError": "amct_onnx.errors",
    "OutputError": "amct_onnx.errors",
    "SettingError": "amct_onnx.errors",
    "UnsupportedModelError": "amct_onnx.errors",
}


_QUANTIZERS = (
    "create_quant_config",
    "quantize_model",
    "save_model",
    "accuracy_based_auto_calibration",
    "quantize_preprocess",
)
"""Functions of the vendor's package that quantize a float model."""


if not TYPE_CHECKING:  # a name that is none is an error of the type checker as well

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name == "convert_model":
            return import_module("amct_onnx.convert_model")
        if name in _QUANTIZERS:
            return _refuse(name)
        if name not in _HOMES:
            raise AttributeError(f"module 'amct_onnx' has no attribute '{name}'")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def _refuse(name: str) -> Any:
    """A function in the place of one that this package does not have."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        from amct_onnx.errors import AmctError

        raise AmctError(
            f"{name}: this package does not quantize float models, it converts quantized ones. Quantize the model with "
            "onnxruntime's quantize_static (QDQ format, symmetric int8 weights) or another tool, then call "
            "convert_qat_model; with a record of factors, call convert_model."
        )

    return refuse


def __dir__() -> list[str]:
    return sorted(__all__)
