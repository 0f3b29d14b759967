"""Pages load nothing from other hosts: a script, style, font or picture that does is a warning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_logger = logging.getLogger(__name__)
_REMOTE = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]*\""
    r"|url\([\"']?(?:https?:)?//[^)]*\)"
)


def _check(app: Sphinx, problem: Exception | None) -> None:
    if problem is not None:
        return
    for path in Path(app.outdir).rglob("*"):
        if path.suffix in {".html", ".css"}:
            for remote in set(_REMOTE.findall(path.read_text(encoding="utf-8"))):
                _logger.warning("%s loads %s", path, remote)


def setup(app: Sphinx) -> dict[str, Any]:
    """Check the pages when they have been written."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True}
