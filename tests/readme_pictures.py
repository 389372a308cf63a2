"""Make the pictures of the README from the example: the table on a terminal and the top of the report.

python tests/readme_pictures.py, with Chromium and its driver installed. Written to docs/images/.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from functools import partial
from pathlib import Path

from PIL import Image
from rich.console import Console

import amct_onnx
from amct_onnx.common.console import Laid
from amct_onnx.errors import command_line
from amct_onnx.verbs.compare.present.html.write_html import render_html
from amct_onnx.verbs.compare.present.screen import parts
from support.browser import chromium

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
COLUMNS = 88
WIDTH, HEIGHT = 1280, 980
COLOURS = 64


def terminal(report: amct_onnx.CompareReport) -> str:
    """What ``amct_onnx compare`` shows on a terminal, as SVG without the address of a font."""
    screen = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    with command_line():
        screen.print(Laid(partial(parts, report, verbose=False, page="report.html", everything=False)))
    return re.sub(r"\s*@font-face \{.*?\}", "", screen.export_svg(title="amct_onnx compare"), flags=re.DOTALL)


def main() -> None:
    """Convert and compare the example, draw what a user sees."""
    IMAGES.mkdir(exist_ok=True)
    amct_onnx.set_logging_level("error", "error")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # no path of a machine is shown
        amct_onnx.demo_files(".")
        amct_onnx.convert_qat_model("model_qat.onnx", "results/digits")
        report = amct_onnx.compare(
            "model_qat.onnx",
            "results/digits",
            "testset.npz",
            labels="testset.npz",
            devices=("310P",),
        )
        (IMAGES / "compare.svg").write_text(terminal(report), encoding="utf-8")
        page = Path("report.html")
        content = json.loads(json.dumps(report.to_dict()).replace(f"{Path.cwd()}/", ""))
        page.write_text(render_html(content), encoding="utf-8")
        with chromium() as browser:
            browser.open(page.resolve(), width=WIDTH, height=HEIGHT)
            shot = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png()))
    small = shot.convert("RGB").resize((WIDTH // 4 * 3, HEIGHT // 4 * 3), Image.Resampling.LANCZOS)
    small.quantize(COLOURS).save(IMAGES / "report.png", optimize=True)
    for file in sorted(IMAGES.iterdir()):
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
