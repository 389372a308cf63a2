"""The keys of compared tensors, as a state file spells them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_onnx.verbs.compare.key import INPUT, LAYER, OUTPUT, Key


@given(st.sampled_from((OUTPUT, LAYER, INPUT)), st.integers(0, 999_999_999))
def test_text_gives_the_key_again(kind: str, index: int) -> None:
    assert Key.from_text(Key(kind, index).to_text()) == Key(kind, index)


@pytest.mark.parametrize(
    "text", ["", "layer", "layer:", "layer:-1", "layer:01", "layer:1 ", "bias:1", "layer:1:2", "layer:\u0663"]
)
def test_other_text_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="does not name"):
        Key.from_text(text)
