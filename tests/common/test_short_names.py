"""Long names keep their beginning and end, and nothing of a text is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amct_onnx.common.short_names import LIMIT, distinct, middle_out, pieces, shortened


def test_the_middle_of_a_long_name_is_left_out() -> None:
    name = "/model/" + "layer/" * 60 + "Conv_17"
    assert middle_out(name) == "/model/layer/layer/…" + name[-38:] and LIMIT - 2 == len(middle_out(name))
    assert middle_out("a" * 100) == "a" * 19 + "…" + "a" * 40
    assert middle_out("/c1/Conv") == "/c1/Conv"


@given(st.lists(st.text("ab/ '\n", max_size=3 * LIMIT), max_size=3).map(" ".join))
def test_only_long_words_are_shortened_and_their_whole_is_kept(text: str) -> None:
    found = pieces(text)
    assert "".join(whole or shown for shown, whole in found) == text
    assert all(len(shown) <= LIMIT for shown, whole in found if whole)
    assert max((len(word) for shown, _ in found for word in shown.split()), default=0) <= LIMIT


@given(st.lists(st.text("ab", min_size=0, max_size=40)))
def test_no_two_names_are_shown_alike(names: list[str]) -> None:
    shown = distinct(names, limit=5)
    assert set(shown) == set(names) and len(set(shown.values())) == len(shown)
    assert all(shown[name] == name for name in names if len(name) <= 5)


def test_long_names_are_short_unless_they_differ_in_their_middle() -> None:
    one, two, three = "a" * 400, "a" * 200 + "b" + "a" * 199, "c" * 400
    shown = distinct([one, two, three], limit=60)
    assert {len(text) for text in shown.values()} == {60} and "b" in shown[two] and "b" not in shown[one]


def test_names_alike_at_both_ends_show_where_they_differ() -> None:
    names = [f"/{'block/' * 20}stage_{i}/{'conv/' * 20}out" for i in range(3)]
    for limit in (20, 28, 60):
        for i, text in enumerate(distinct(names, limit).values()):
            assert len(text) <= limit and f"/stage_{i}/" in text and text.endswith("out")


@given(st.lists(st.text("ab/'(", max_size=3 * LIMIT), max_size=4).map(" ".join))
def test_a_sentence_keeps_its_words_and_their_differences(text: str) -> None:
    found = shortened(text)
    assert len(found.split()) == len(text.split())
    for one, short in zip(text.split(), found.split(), strict=True):
        for other, like in zip(text.split(), found.split(), strict=True):
            assert one == other or short != like
