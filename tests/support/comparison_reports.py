"""Reports of comparisons as JSON holds them, for tests of pages: usual, long, short, interrupted, hostile."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "data" / "compare_report.json"
HOSTILE = "</script></title><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'{{7*7}}"
HOSTILE += "\u202e\u2028\x1b[2J\x00"


def example() -> dict[str, Any]:
    report: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return report


def many_layers(count: int = 150) -> dict[str, Any]:
    """Layers of a network with long names, the faulty one's and its nodes' of 400 characters."""
    report = example()
    layers = report["layers"]
    report["layers"] = [copy.deepcopy(layers[i % len(layers)]) for i in range(count)]
    for index, layer in enumerate(report["layers"]):
        layer["name"] = f"/backbone/stages.{index // 50}/blocks.{index % 50}/attention/output/dense/MatMul_{index}"
    faulty = report["layers"][104]
    faulty["name"] = f"/{'a_long_module_name/' * 20}Conv".ljust(400, "_")
    for node in (*faulty["source_nodes"], *faulty["deploy_nodes"]):
        node["name"] = faulty["name"] if node["layer"] else f"{faulty['name']}.{node['op_type']}"
    for divergence in report["divergences"]:
        divergence["index"], divergence["layer"] = 104, faulty["name"]
    change = report["cost"]["changes"][1]
    change["advice"] = change["advice"].replace("/act/Sigmoid_output_0", faulty["name"])
    report["cost"]["free_axes"] = [f"{faulty['name']}.axis_{k}" for k in range(3)]
    return report


def one_layer() -> dict[str, Any]:
    """A model of one layer without metrics, divergence and histograms."""
    report = example()
    report["layers"], report["divergences"], report["histograms"] = report["layers"][:1], [], []
    for model in report["models"]:
        model["metrics"] = []
    report["verdict"].update(level="equal", advice=[])
    return report


def partial() -> dict[str, Any]:
    """Interrupted before any layer was compared."""
    report = example()
    report.update(complete=False, samples=32, samples_total=10_000)
    for layer in report["layers"]:
        layer.update(differences=[], counts=[], compared=False)
    return report


def hostile() -> dict[str, Any]:
    """Every text of the report wants to run a script or to leave its place."""

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v, key) for v in value]
        kept = ("key", "model", "level", "verdict", "action", "form")
        return HOSTILE + value if isinstance(value, str) and key not in kept else value

    report: dict[str, Any] = spoil(example())
    return report


REPORTS = {f.__name__: f for f in (example, many_layers, one_layer, partial, hostile)}
