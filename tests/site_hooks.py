"""What mkdocs does with a page before it renders it: docs/internals.md shows a section of CONTRIBUTING.md.

On GitHub the page links to that section. The site holds docs/ alone, so there the section takes the link's place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
LINK = re.compile(r"^\[[^\]]*\]\(\.\./CONTRIBUTING\.md#([a-z-]+)\)$", re.MULTILINE)
"""A paragraph that is a link to a section of CONTRIBUTING.md."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's text, with the section in the place of each such link."""
    return LINK.sub(lambda link: section(link[1]), markdown)


def section(slug: str) -> str:
    """A section of CONTRIBUTING.md as a page in docs/ writes it.

    Raises:
        KeyError: There is no such heading.
    """
    parts = re.split(r"^(?=## )", SOURCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    by_slug = {part.partition("\n")[0].removeprefix("## ").lower().replace(" ", "-"): part for part in parts}
    return by_slug[slug].replace("](docs/", "](")
