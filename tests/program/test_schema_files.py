"""docs/schemas: a JSON Schema of every report, to which the documents of real runs are held."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import amct_onnx
from amct_onnx.verbs.atc.compiled_layers import compiled_layers
from schema_files import FOLDER, REPORTS, text_of
from support.comparison_cases import Case, scale_dequantizer
from support.deploy_models import good_model


def validator(verb: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / f"{verb}.schema.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("verb", REPORTS)
def test_files_are_those_of_the_reports(verb: str) -> None:
    text = (FOLDER / f"{verb}.schema.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(text_of(REPORTS[verb])), "run: python tests/schema_files.py"
    Draft202012Validator.check_schema(json.loads(text))


def is_held(verb: str, document: Any) -> None:
    """The schema takes the document, and refuses it when a value is missing, added, or of another kind."""
    check = validator(verb)
    assert [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in check.iter_errors(document)] == []
    for spoil in (
        lambda d: d.pop("schema_version"),
        lambda d: d.update(unknown=1),
        lambda d: d.update(schema_version="1"),
        lambda d: d.update(summary=3) if "summary" in d else d.update(verdict=3),
    ):
        spoilt = copy.deepcopy(document)
        spoil(spoilt)
        assert not check.is_valid(spoilt)


def words(schema: Any, part: Any, value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of the document's values for which the schema lists words."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    if "enum" in part:
        yield path
    for other in part.get("anyOf", ()):
        yield from words(schema, other, value, path)
    for name, other in part.get("properties", {}).items() if isinstance(value, dict) else ():
        yield from words(schema, other, value[name], (*path, name))
    for index, item in enumerate(value) if isinstance(value, list) and isinstance(part.get("items"), dict) else ():
        yield from words(schema, part["items"], item, (*path, index))


def refuses_other_words(verb: str, document: Any) -> set[str]:
    """The names of the fields for which the schema takes its own words only, each tried once."""
    check = validator(verb)
    found = {path[-1]: path for path in words(check.schema, check.schema, document)}
    for path in found.values():
        spoilt = copy.deepcopy(document)
        place = functools.reduce(lambda part, key: part[key], path[:-1], spoilt)
        place[path[-1]] = "foo"
        assert not check.is_valid(spoilt), path
    return set(found)


def written(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_documents_of_a_conversion(digits: Case) -> None:
    ledger = written(Path(f"{digits.prefix}_quant.json"))
    is_held("convert", ledger)
    told = {"verdict", "granularity", "reason", "act_matmul"}
    assert told <= refuses_other_words("convert", ledger)
    is_held("check", json.loads(json.dumps(amct_onnx.check(digits.deploy).to_dict())))
    is_held("bias", json.loads(json.dumps(amct_onnx.quantize_bias(digits.source, "b.onnx").to_dict())))


def test_documents_of_runs(small: Case) -> None:
    with np.load(small.data) as archive:
        feeds = {n: a[:4] for n, a in archive.items()}
    amct_onnx.simulate(small.deploy, feeds, "run")
    is_held("simulate", written(Path("run/simulation.json")))
    assert refuses_other_words("simulate", written(Path("run/simulation.json"))) == {"kernel"}
    is_held("compare", json.loads(json.dumps(small.compare(feeds).to_dict())))
    scale_dequantizer(small.deploy, small.layers[0], 1.5)
    document = json.loads(json.dumps(small.compare(feeds, labels=np.zeros(4, np.int64)).to_dict()))
    is_held("compare", document)
    assert {"level", "cause", "place", "form", "lsb_of", "key"} <= refuses_other_words("compare", document)


def test_document_of_a_diagnosis() -> None:
    document = json.loads(json.dumps(amct_onnx.doctor().to_dict()))
    is_held("doctor", document)
    assert refuses_other_words("doctor", document) == {"level", "verdict"}


def test_document_of_a_compiled_model() -> None:
    Path("m_deploy_model.onnx").write_bytes(good_model().SerializeToString())
    described = {"input_desc": [{"dtype": "DT_INT8"}], "output_desc": [{"dtype": "DT_FLOAT16"}]}
    operator = {"name": "conv", "type": "Conv2D", "id": 1, "input": ["x:0"], "attr": [], **described}
    Path("om.json").write_text(json.dumps({"name": "net", "graph": [{"name": "g", "op": [operator]}], "attr": []}))
    report = compiled_layers("om.json", "m_deploy_model.onnx")
    assert report.layers
    document = json.loads(json.dumps(report.to_dict()))
    is_held("atc", document)
    assert refuses_other_words("atc", document) == {"intended", "compiled"}
