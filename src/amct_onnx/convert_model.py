"""The vendor's import path: ``from amct_onnx.convert_model import convert_qat_model``."""

from amct_onnx.verbs.convert.convert_model import convert_qat_model as convert_qat_model
