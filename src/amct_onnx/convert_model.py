"""The vendor's import path: ``from amct_onnx.convert_model import convert_qat_model``.

The vendor's other tools have a function ``convert_model`` in their package. A module of a package is also an attribute
of it, so this module can be called as that function: ``amct_onnx.convert_model(model, record, save_path)``.
"""

import sys
from types import ModuleType
from typing import Any

from amct_onnx.verbs.convert.convert_model import convert_model as convert_model
from amct_onnx.verbs.convert.convert_model import convert_qat_model as convert_qat_model


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return convert_model(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
