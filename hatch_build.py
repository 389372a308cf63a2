"""The addresses of a release: the repository that builds it is known to its workflow alone.

There, GITHUB_SERVER_URL and GITHUB_REPOSITORY say where the project is, and the package index gets absolute links.
Elsewhere the links of README.md stay as they are in the sources.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|mailto:|#)([^)\s]+)\)")
"""An image's mark, the text and the target of a relative link in Markdown."""


class Addresses(MetadataHookInterface):
    """Sets the fields ``readme`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in what ``dynamic`` of pyproject.toml leaves open."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = os.environ.get("GITHUB_REPOSITORY")
        if repository:
            home = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}"
            metadata["urls"] = {
                "Source": home,
                "Documentation": f"{home}/blob/main/docs/index.md",
                "Changelog": f"{home}/blob/main/CHANGELOG.md",
                "Issues": f"{home}/issues",
            }
            text = LINK.sub(lambda link: _absolute(home, *link.groups()), text)
        else:
            metadata["urls"] = {}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def _absolute(home: str, image: str, text: str, target: str) -> str:
    return f"{image}{text}({home}/{'raw' if image else 'blob'}/main/{target})"
