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


def test_signs_and_exponents_are_numbers_and_the_others_are_where_it_is_said() -> None:
    """A scale of 100,000 is written as 1e+05."""
    scales = [f"Layer '{n}': its scale {scale:.6g} lies outside." for n, scale in enumerate((1e-9, 2.5e20, -3, 0.5))]
    assert first_of_each_kind(scales, "with --all") == [f"{scales[0]} (3 more of this kind with --all.)"]
