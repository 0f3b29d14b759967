"""Documents of the repository are pages of the manual, and links lead to these pages.

CHANGELOG.md, benchmarks/README.md and some others are written for their folders. Their pages in
``docs/`` have a link to them; in the manual this link gives way to the document itself. Other
links into the repository, such as those to a spec or a notebook, become downloads.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Pages that consist of a document of another folder.
PAGES = {
    "benchmarks": ROOT / "benchmarks" / "README.md",
    "changelog": ROOT / "CHANGELOG.md",
    "cluster-specs": ROOT / "cluster_specs" / "README.md",
    "contributing": ROOT / "CONTRIBUTING.md",
    "examples": ROOT / "examples" / "README.md",
    "image": ROOT / "image" / "README.md",
    "notebooks": ROOT / "notebooks" / "README.md",
}
# Pages of the guide that a version may lack: its index names them all the same.
OPTIONAL = ("dashboard", "exports", "live-view", "promote", "versions")
_PAGE_OF = {document: DOCS / f"{page}.md" for page, document in PAGES.items()} | {
    DOCS / "gallery": DOCS / "auto_gallery" / "index.rst",
}
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def moved(text: str, folder: Path, to: Path) -> str:
    """Rewrite a document's relative links for a page in another folder."""

    def target(link: re.Match[str]) -> str:
        path = (folder / link[1]).resolve()
        path = _PAGE_OF.get(path, path)
        return f"]({os.path.relpath(path, to)}{link[2] or ''})"

    return _LINK.sub(target, text)


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    if app.env.doc2path(page).suffix != ".md":
        return
    folder = (DOCS / page).parent
    document = PAGES.get(page)
    if document is None:
        text = _without_missing(source[0]) if page == "guide/index" else source[0]
        source[0] = moved(text, folder, folder)
    else:
        text = document.read_text(encoding="utf-8")
        source[0] = moved(text, document.parent, folder)


def _without_missing(index: str) -> str:
    """Leave out the lines of pages that do not exist."""
    missing = {one for one in OPTIONAL if not (DOCS / "guide" / f"{one}.md").exists()}
    return "\n".join(one for one in index.splitlines() if one not in missing)


def _always_read(app: Sphinx, env: Any, *_changed: set[str]) -> list[str]:
    """Name the pages: their documents may have changed while they have not."""
    del app, env
    return [*PAGES, "guide/index"]


def setup(app: Sphinx) -> dict[str, Any]:
    """Read the pages from their documents."""
    app.connect("source-read", _read)
    app.connect("env-get-outdated", _always_read)
    return {"parallel_read_safe": True}
