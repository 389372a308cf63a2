"""The story page tells what compare finds today."""

from __future__ import annotations

from pathlib import Path

import pytest

from story_page import FAULTY_LAYER, PAGE, STORIES, fault, row


@pytest.mark.parametrize("name", ["torchfx_digitsnet_i8sym_op13", "pt2e_digitsae_xnnpack_dynamo18"])
def test_row_is_what_compare_finds(name: str, tmp_path: Path) -> None:
    (told,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if f" | {name} | " in line]
    old, new = ([c.strip() for c in line.split("|")[1:-1]] for line in (told, row(name, tmp_path)))
    assert old[:4] == new[:4] and old[-1] == new[-1]
    for before, now in zip(old[4:-1], new[4:-1], strict=True):
        # another CPU sums floats in another order, which decides ties: one answer of 360, 1 % of an error
        assert abs(float(before) - float(now)) <= (0.01 * float(before) if "." in before else 1)


def test_fault_is_named_at_its_layer(tmp_path: Path) -> None:
    text = fault(tmp_path)
    assert f"layer '{FAULTY_LAYER}' (scale-fault)" in text


def test_page_tells_every_story() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in STORIES)
