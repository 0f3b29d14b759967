"""Makes the readme of a distribution: README.md without links that lead nowhere outside.

A page of a package registry shows the readme, but not the repository's files. If ``Source`` stands under
``[project.urls]``, links to files of the repository become absolute, below ``Source``; without it,
only their texts stay.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Sets ``readme``, which is dynamic."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the readme to the project's metadata."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(text, metadata.get("urls", {}).get("Source")),
        }


def absolute_links(text: str, source: str | None) -> str:
    """Make links to files of the repository absolute, or only text.

    Parameters
    ----------
    text : str
        Markdown.
    source : str or None
        Address of the repository.
    """

    def link(found: re.Match[str]) -> str:
        image, shown, target = found.groups()
        shown = _LINK.sub(link, shown)  # a badge is an image within a link
        if target.startswith(("#", "mailto:")) or "://" in target:
            return f"{image}[{shown}]({target})"
        if source is None:
            return "" if image else shown
        kind = "raw" if image else "blob"
        return f"{image}[{shown}]({source.rstrip('/')}/{kind}/main/{target})"

    parts = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        part if part.startswith("```") else _LINK.sub(link, part) for part in parts
    )
