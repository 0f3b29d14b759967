"""The pages of the manual, and the blocks of code that they have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
# What is built, and records, which describe the past.
_WITHOUT_BLOCKS = ("_build", "decisions")
# What a reader pastes into Python, or into a shell.
PYTHON = ("python", "py", "pycon")
SHELL = ("bash", "console", "sh", "shell")
_MARKER = re.compile(r"<!--\s*not run:\s*(.*?)\s*-->", flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code of a page.

    Attributes
    ----------
    language : str
        As it stands after the fence; "" of an indented block.
    reason : str or None
        Why it is not run, as the comment before it says: ``<!-- not run: … -->``.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return README and the Markdown files of the manual."""
    found = sorted(DOCS.rglob("*.md"))
    inner = [
        one for one in found if one.relative_to(DOCS).parts[0] not in _WITHOUT_BLOCKS
    ]
    return [ROOT / "README.md", *inner]


def blocks(page: Path) -> list[Block]:
    """Return a page's blocks of code, in their order."""
    found, reason = [], None
    name = page.relative_to(ROOT).as_posix()
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in {"fence", "code_block"}:
            language = token.info.split()[0] if token.info.strip() else ""
            line = 1 if token.map is None else token.map[0] + 1
            if not language.startswith("{"):
                found.append(Block(name, line, language, token.content, reason))
        marker = _MARKER.search(token.content) if token.type == "html_block" else None
        reason = None if marker is None else marker[1]
    return found


def run_blocks(page: Path, languages: tuple[str, ...]) -> list[Block]:
    """Return the blocks of a page in these languages that are to be run."""
    return [
        one for one in blocks(page) if one.language in languages and one.reason is None
    ]
