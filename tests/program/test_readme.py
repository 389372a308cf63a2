"""Both READMEs: the same commands, which the parser takes and Python runs, and links that lead somewhere."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pytest

import amct_onnx
from amct_onnx.cli.command import parser_of
from amct_onnx.cli.parser import VERBS
from readme_pictures import terminal

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
LINK = re.compile(r"\]\(([^)#]+)(#[^)]*)?\)")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    """Lines of indented blocks."""
    return [line.strip() for line in text(name).splitlines() if line.startswith("    ")]


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text(name), re.DOTALL)


def test_both_languages_have_the_same_commands() -> None:
    indented = [line for line in commands("README.md") if not line.startswith("print(")]
    assert indented == [line for line in commands("README.zh-CN.md") if not line.startswith("print(")]
    assert [line.split("#")[0].strip() for line in indented[:2]] == ["./run_example", "./run_tests"]
    assert python_blocks("README.md") == python_blocks("README.zh-CN.md")


def test_commands_are_taken_and_every_verb_is_told_of() -> None:
    for line in commands("README.md"):
        if line.startswith("amct_onnx "):
            parser_of().parse_args(shlex.split(line)[1:])
    for name in READMES:
        rows = re.findall(r"^\| `(\w+)` \|", text(name), re.MULTILINE)
        assert set(rows) == set(VERBS)


@pytest.mark.parametrize("name", READMES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    links = LINK.findall(text(name))
    assert len(links) > 20
    for target, anchor in links:
        assert (ROOT / target).is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / target).read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor[1:] in slugs, (target, anchor)


def test_python_of_the_readme_runs(tmp_path: Path) -> None:
    amct_onnx.demo_files(".")
    (block,) = python_blocks("README.md")
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert "session" in names and Path("results/record.txt").is_file()


def _cells(picture: str) -> list[str]:
    """The texts of an SVG in their order, without the time that a run took."""
    texts = [html.unescape(t).replace("\xa0", " ").strip() for t in re.findall(r"<text[^>]*>(.*?)</text>", picture)]
    return [t for t in texts if t and " in " not in t]


def test_picture_shows_what_a_terminal_shows() -> None:
    amct_onnx.demo_files(".")
    amct_onnx.convert_qat_model("model_qat.onnx", "results/digits")
    data = "testset.npz"
    report = amct_onnx.compare("model_qat.onnx", "results/digits", data, labels=data, devices=("310P",))
    drawn, shown = (
        _cells(p) for p in ((ROOT / "docs" / "images" / "compare.svg").read_text(encoding="utf-8"), terminal(report))
    )
    assert [NUMBER.sub("0", c) for c in drawn] == [NUMBER.sub("0", c) for c in shown]
    # kernels of another CPU round the float operators otherwise
    figures = [[float(n) for c in cells for n in NUMBER.findall(c)] for cells in (drawn, shown)]
    assert figures[0] == pytest.approx(figures[1], rel=0.1, abs=0.002)
