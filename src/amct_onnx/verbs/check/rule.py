"""The form of a rule: data for people on top of the function that finds where a model breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

from amct_onnx.device.chips import Chip
from amct_onnx.verbs.check.cann_versions import CANN_VERSIONS
from amct_onnx.verbs.check.model_view import ModelView
from amct_onnx.verbs.check.report import Severity


@dataclass(frozen=True)
class Hit:
    """One place where a rule is broken.

    Attributes:
        detail: what was found there, without full stop.
        node: name of the node, or "".
        tensor: name of the tensor, or "".
    """

    detail: str
    node: str = ""
    tensor: str = ""


Find = Callable[[ModelView], Iterator[Hit]]


def every_chip(chip: Chip) -> bool:
    """The rule holds on all chips."""
    return True


@dataclass(frozen=True)
class Rule:
    """One rule of acceptance.

    Attributes:
        id: stable name, kebab-case.
        severity: of every finding, see amct_onnx.verbs.check.report.
        title: what is wrong, a few words.
        why: what the compiler does, one or two sentences.
        source: where that was read: repository and path, or the vendor's documentation.
        remedy: what to do.
        find: yields the places; called once for a model, whatever the chips.
        chips: those on which the rule holds.
        versions: CANN versions in which it holds.
    """

    id: str
    severity: Severity
    title: str
    why: str
    source: str
    remedy: str
    find: Find
    chips: Callable[[Chip], bool] = every_chip
    versions: tuple[str, ...] = CANN_VERSIONS


_RULES: dict[Find, list[Rule]] = {}
"""A function -> its rules, the first one on top."""


def rule(
    *,
    id: str,
    severity: Severity,
    title: str,
    why: str,
    source: str,
    remedy: str,
    chips: Callable[[Chip], bool] = every_chip,
    versions: tuple[str, ...] = CANN_VERSIONS,
) -> Callable[[Find], Find]:
    """Make a rule of the function below: what it finds breaks the rule. The arguments are those of ``Rule``.

    A function may have several rules, for example one of each severity on different chips.
    """

    def declare(find: Find) -> Find:
        _RULES.setdefault(find, []).insert(0, Rule(id, severity, title, why, source, remedy, find, chips, versions))
        return find

    return declare


def rules_of(module: ModuleType) -> list[Rule]:
    """The rules of a module, in the order in which it holds them."""
    functions = [f for f in vars(module).values() if getattr(f, "__module__", "") == module.__name__ and callable(f)]
    return [rule for function in functions for rule in _RULES.get(function, ())]
