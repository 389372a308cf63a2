"""The package imports lightly, and every public name is there on first use."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

import amct_onnx
from amct_onnx import errors
from amct_onnx.verbs.convert.convert_model import convert_qat_model
from support.golden_models import MODELS

TIDY = MODELS / "torchfx_digitsnet_i8sym_op13" / "model.onnx"
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "google.protobuf", "msgspec")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("module", ["amct_onnx", "amct_onnx.cli", "amct_onnx.common.log", "amct_onnx.errors"])
def test_import_is_light_and_writes_nothing(tmp_path: Path, module: str) -> None:
    assert python(f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])") == "[]"
    assert not list(tmp_path.iterdir())


def test_every_public_name_resolves() -> None:
    assert set(amct_onnx.__all__) <= set(dir(amct_onnx))
    for name in amct_onnx.__all__:
        assert getattr(amct_onnx, name) is not None
    with pytest.raises(AttributeError, match="quantize_tensor"):
        _ = amct_onnx.quantize_tensor


def test_every_error_class_is_public() -> None:
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.AmctError):
            assert getattr(amct_onnx, name) is value


def test_submodule_import_is_the_same_function() -> None:
    assert amct_onnx.convert_qat_model is convert_qat_model
    code = "from amct_onnx.convert_model import convert_qat_model as f; import amct_onnx as a; "
    assert python(code + "print(a.convert_qat_model is f)") == "True"


def test_no_public_name_is_a_submodule() -> None:
    """Importing ``amct_onnx.x.y`` sets the attribute x of the package to the module, for good."""
    modules = {m.name for m in pkgutil.iter_modules(amct_onnx.__path__)}
    # convert_model is the vendor's module, and no public name
    assert not modules & set(amct_onnx.__all__)


def test_functions_stay_functions_whatever_is_imported_first() -> None:
    functions = {n: home for n, home in amct_onnx._HOMES.items() if n[0].islower()}
    assert "doctor" in functions
    code = "import amct_onnx, amct_onnx.cli; " + "; ".join(f"import {home}" for home in functions.values())
    same = " and ".join(f"amct_onnx.{n} is sys.modules['{home}'].{n}" for n, home in functions.items())
    assert python(f"import sys; {code}; print({same} and callable(amct_onnx.doctor))") == "True"


def test_session_options_are_cached_and_usable() -> None:
    options = amct_onnx.AMCT_SO
    assert options is amct_onnx.AMCT_SO
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.get_session_config_entry("session.disable_quant_qdq") == "1"
    ort.InferenceSession(str(TIDY), options)
