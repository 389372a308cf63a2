"""Write docs/schemas/ from the reports' dataclasses: python tests/schema_files.py.

msgspec derives a JSON Schema from a dataclass; what ``common/json_values.py`` does beside is added: properties of
JSON_ALSO, the version in front, and null for a number that is not finite.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from amct_onnx.common.json_values import JsonReport
from amct_onnx.verbs.atc.compiled_layers import CompiledReport
from amct_onnx.verbs.bias.report import BiasReport
from amct_onnx.verbs.check.report import CheckReport
from amct_onnx.verbs.compare.report import CompareReport
from amct_onnx.verbs.convert.report import ConversionReport
from amct_onnx.verbs.doctor.report import DoctorReport
from amct_onnx.verbs.simulate.simulate import Simulation

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REPORTS: dict[str, type[JsonReport]] = {
    "convert": ConversionReport,
    "bias": BiasReport,
    "check": CheckReport,
    "atc": CompiledReport,
    "simulate": Simulation,
    "compare": CompareReport,
    "doctor": DoctorReport,
}
"""Verb -> what its ``--json`` prints."""
REF = "#/$defs/{name}"


def schema_of(report: type[JsonReport]) -> dict[str, Any]:
    """The JSON Schema of a report."""
    (root,), parts = msgspec.json.schema_components(
        [report], ref_template=REF, schema_hook=lambda cls: {"type": "array"}
    )
    known = {cls.__name__: cls for cls in dataclasses_of(report)}
    for name in list(parts):
        parts.update(_complete(parts[name], known[name]))
    if report is Simulation:
        _hang_counts_on_layers(parts)
    return {"$schema": DIALECT, "title": report.__name__, **root, "$defs": dict(sorted(parts.items()))}


def dataclasses_of(report: type) -> list[type]:
    """The report and every dataclass that its fields name."""
    found: list[type] = []
    waiting: list[Any] = [report]
    while waiting:
        kind = waiting.pop()
        waiting += getattr(kind, "__args__", ())
        if hasattr(kind, "__dataclass_fields__") and kind not in found:
            found.append(kind)
            waiting += get_type_hints(kind).values()
    return found


def _complete(schema: dict[str, Any], cls: type) -> dict[str, Any]:
    """The schema of one dataclass as it is written, and of what its properties need; changes ``schema``."""
    more: dict[str, Any] = {}
    properties = schema["properties"]
    for name in getattr(cls, "JSON_NOT", ()):
        del properties[name]
    for name in getattr(cls, "JSON_ALSO", ()):
        made = inspect.getattr_static(cls, name)
        (part,), needed = msgspec.json.schema_components(
            [get_type_hints(made.fget if isinstance(made, property) else made)["return"]], ref_template=REF
        )
        properties[name] = part
        more.update(needed)
    for part in properties.values():
        _with_null(part)
    if issubclass(cls, JsonReport):
        schema["properties"] = {"schema_version": {"const": cls.SCHEMA_VERSION}, **properties}
    schema.update(required=list(schema["properties"]), additionalProperties=False)
    return {**more, cls.__name__: schema}


def _with_null(schema: Any) -> None:
    """A number may be null: it was not finite. What a report is made with by default is no matter of its reader."""
    if isinstance(schema, list):
        for part in schema:
            _with_null(part)
    elif isinstance(schema, dict):
        schema.pop("default", None)
        if schema.get("type") == "number":
            schema["type"] = ["number", "null"]
        for part in schema.values():
            _with_null(part)


def _hang_counts_on_layers(parts: dict[str, Any]) -> None:
    """``Simulation.to_dict`` writes each layer's counts into the layer; simulation.json lists its files beside."""
    report, layer = parts["Simulation"], parts["LayerFacts"]
    del report["properties"]["counts"]
    report["required"].remove("counts")
    listed = {"name": {"type": "string"}, "size": {"type": "integer"}, "sha256": {"type": "string"}}
    report["properties"]["files"] = {
        "type": "array",
        "items": {"type": "object", "properties": listed, "required": list(listed), "additionalProperties": False},
    }
    layer["properties"]["counts"] = {"anyOf": [{"$ref": REF.format(name="LayerCounts")}, {"type": "null"}]}
    layer["required"].append("counts")


def text_of(report: type[JsonReport]) -> str:
    """The content of a schema's file."""
    return json.dumps(schema_of(report), indent=1) + "\n"


def main() -> None:
    """Write all."""
    FOLDER.mkdir(exist_ok=True)
    for verb, report in REPORTS.items():
        (FOLDER / f"{verb}.schema.json").write_text(text_of(report), encoding="utf-8")


if __name__ == "__main__":
    main()
