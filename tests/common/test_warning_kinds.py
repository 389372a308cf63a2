"""A warning of each kind is told once."""

from __future__ import annotations

from amct_onnx.common.warning_kinds import first_of_each_kind


def test_names_shapes_and_numbers_make_no_kind() -> None:
    stale = [f"Tensor 't{n}' is declared with shape [1, {n}], the graph makes [1, 3]." for n in range(9)]
    other = "Layer 'a': its accumulator may reach 2,147,483,650, beyond 2^31 - 1."
    assert first_of_each_kind([*stale[:4], other, *stale[4:]]) == [
        f"{stale[0]} (8 more of this kind in the ledger.)",
        other,
    ]
    assert first_of_each_kind([]) == []
