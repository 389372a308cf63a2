"""Nouns agree with their numbers, in every message."""

from __future__ import annotations

import pytest

from amct_onnx.common.counted import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("sample",), "0 samples"),
        (1, ("sample",), "1 sample"),
        (12_345, ("sample",), "12,345 samples"),
        (1, ("layer stays", "layers stay"), "1 layer stays"),
        (2, ("layer stays", "layers stay"), "2 layers stay"),
    ],
)
def test_a_noun_agrees_with_its_number(number: int, words: tuple[str, ...], said: str) -> None:
    assert counted(number, *words) == said
