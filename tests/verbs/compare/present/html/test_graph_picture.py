"""Boxes and lines of the nodes around a layer."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from amct_onnx.verbs.compare.present.html.graph_picture import BOX_HEIGHT, NAME, graph_picture


def node(name: str, *reads: int, op_type: str = "Conv") -> dict[str, Any]:
    return {"name": name, "op_type": op_type, "own": True, "layer": False, "reads": list(reads)}


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(1, 24))
    return [
        node(f"n{i}", *draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True) if i else st.just([])))
        for i in range(count)
    ]


@given(graphs())
def test_every_node_stands_below_what_it_reads_and_on_no_other(nodes: list[dict[str, Any]]) -> None:
    picture = graph_picture(nodes, {})
    assert [b.whole for b in picture.boxes] == [n["name"] for n in nodes]
    for box, made in zip(picture.boxes, nodes, strict=True):
        assert all(picture.boxes[i].y + BOX_HEIGHT < box.y for i in made["reads"])
        assert 0 <= box.x <= picture.width - picture.box_width and 0 <= box.y <= picture.height - BOX_HEIGHT
    assert len({(b.x, b.y) for b in picture.boxes}) == len(nodes)
    assert not any(
        abs(a.x - b.x) < picture.box_width and abs(a.y - b.y) < BOX_HEIGHT for a, b in combinations(picture.boxes, 2)
    )
    assert len(picture.lines) == sum(len(n["reads"]) for n in nodes)


def test_what_is_wrong_stands_in_the_box_as_far_as_it_fits() -> None:
    nodes = [node("a", op_type="Relu"), node("b", 0, op_type="AscendDequant"), node("c" * 400, 1)]
    boxes = graph_picture(nodes, {"a": "missing in deploy@a2", "b": "wrong in deploy@a2, deploy@310p"}).boxes
    assert [b.head for b in boxes] == ["Relu – missing in deploy@a2", "AscendDequant – wrong", "Conv"]
    assert len(boxes[2].name) == NAME and boxes[2].whole == "c" * 400


def test_no_two_names_in_a_picture_look_alike() -> None:
    names = [f"/backbone/stages/stage_{i}/blocks/block_0{k}/projection/Conv" for i in range(3) for k in range(3)]
    boxes = graph_picture([node(n) for n in names], {}).boxes
    assert len({b.name for b in boxes}) == len(names) and all("…" in b.name for b in boxes)
