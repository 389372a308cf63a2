"""The commands of examples/README.md, with the output that stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from amct_onnx.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PAGE = (EXAMPLES / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```\n\nAll (\d+) layers .*?```text\n(.*?)```", PAGE, re.DOTALL)
NUMBER = re.compile(r"(\d+\.\d+)( %)?")
BESIDE = 0.02
"""Of a share: kernels of another CPU or version round the float operators otherwise, and an answer may change."""


def numbers(text: str) -> list[float]:
    """Shares in a verdict."""
    found = NUMBER.findall(text)
    return [float(n) / (100 if percent else 1) for n, percent in found]


def test_every_example_of_a_folder_has_its_commands() -> None:
    folders = {p.parent.name for p in EXAMPLES.glob("*/model.onnx")}
    assert len(BLOCKS) == len(folders) and all(f"examples/{f}/model.onnx" in PAGE for f in folders)
    assert all(f"]({p.name})" in PAGE for p in EXAMPLES.iterdir() if p.suffix in (".py", ".ipynb"))
    assert all(p.stat().st_size < 2_000_000 for p in EXAMPLES.rglob("*") if p.is_file() and "out" not in p.parts)


SLOW = {"detector": pytest.mark.slow}  # .ci/run runs it as well


@pytest.mark.parametrize(
    ("commands", "layers", "end"),
    [pytest.param(*b, id=n, marks=SLOW.get(n, ())) for b, n in zip(BLOCKS, ("transformer", "detector"), strict=True)],
)
def test_commands_end_as_the_page_says(
    commands: str, layers: str, end: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLES, "examples", ignore=shutil.ignore_patterns("out", "*.ipynb"))
    monkeypatch.setenv("COLUMNS", "100")
    texts = []
    for line in commands.splitlines():
        program, *words = shlex.split(line)
        assert program == "amct_onnx" and main([*words, *(["--threads", "1"] if words[0] == "compare" else [])]) == 0
        texts.append(capsys.readouterr().out)
    assert f"{layers} of {layers} candidate layers are int8." in texts[0]
    verdict = texts[1][texts[1].index("No fault found.") :]
    said, wanted = " ".join(verdict.split()), " ".join(end.split())
    assert NUMBER.sub("", said).startswith(NUMBER.sub("", wanted.rstrip(".")))
    assert numbers(said)[: len(numbers(wanted))] == pytest.approx(numbers(wanted), abs=BESIDE)
