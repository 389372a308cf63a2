"""docs/errors.md lists every class with its bases and every exit code with its number."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import amct_onnx
from amct_onnx import errors
from amct_onnx.cli import exit_codes

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")


def test_every_class_is_listed_with_its_base_and_code() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \| 2 \|", PAGE, re.MULTILINE))
    classes = {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.AmctError)}
    assert listed == {n: c.__bases__[-1].__name__ for n, c in classes.items()}
    assert exit_codes.EXIT_BAD_INPUT == 2


def test_every_exit_code_is_listed() -> None:
    listed = {int(n) for n in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert listed == {v for n, v in vars(exit_codes).items() if n.startswith("EXIT_")}


# -- what the messages say ---------------------------------------------------------------------------------------------

IMPERATIVES = set(
    "Add Calibrate Change Check Choose Convert Copy Correct Declare Dump Export Give Install Keep Leave Let "
    "Look Make Move Name Open Put Quantize Remove Rename Reshape Return Run Save Scale Source Split Store "
    "Train Use Write Yield".split()
)
"""With one of these begins the sentence that says what to do."""
ELSEWHERE = ("{AGAIN}", "{OUT_OF_THREADS}", "{REMEDY}", "{remedy}", "{text}", "{error}")
"""Names that stand for such a sentence; ``{error}``, at the end, for another of our messages."""


def text_of(node: ast.expr) -> str:
    """A message, with the expressions in it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = node.values
        return "".join(p.value if isinstance(p, ast.Constant) else f"{{{ast.unparse(p.value)}}}" for p in parts)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return f"{{{ast.unparse(node)}}}"


def raised() -> list[tuple[str, str]]:
    """Place and text of every error of the package that is made with a text of its own."""
    classes = {n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.AmctError)}
    found = []
    for path in sorted(Path(amct_onnx.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in classes and node.args:
                found.append((f"{path.name}:{node.lineno}", text_of(node.args[0])))
    return found


def test_every_message_says_what_to_do() -> None:
    """Its last sentence tells the user."""
    messages = raised()
    assert len(messages) > 200
    missing = []
    for place, text in messages:
        last = re.split(r"[.] (?=[A-Z{])", text)[-1]
        said = text.endswith(ELSEWHERE) or last.split(" ")[0] in IMPERATIVES
        if not said or not text.endswith((".", "}")):
            missing.append((place, text))
    assert missing == []
