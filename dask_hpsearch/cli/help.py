"""The command ``help``: a section of the manual's page on troubleshooting, as text.

Errors and warnings end with this command and their name.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch import exceptions
from dask_hpsearch.cli.arguments import EXIT_USAGE

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

_COMMAND = "dask-hpsearch help"
_PAGE = "troubleshooting.md"
_WIDEST = 88
_MOST_PROPOSALS = 5
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page.

    Attributes
    ----------
    title : str
        Name of an error or a warning, or of a group of them.
    text : str
        Markdown; without the sections below it.
    group : str
        Anchor of the group that it belongs to; its own, if it is a group.
    """

    title: str
    text: str
    group: str

    @property
    def anchor(self) -> str:
        """Its anchor, as Sphinx and GitHub make it from the title."""
        return _anchor(self.title)


def add_help(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser("help", help="explain an error or a warning")
    parser.description = (
        "Print the causes of an error or a warning and the ways out, from the manual's page "
        "on troubleshooting. Help on a command: dask-hpsearch COMMAND --help."
    )
    name = parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="name of an error, a warning or a section (default: list them)",
    )
    # `choices` would be listed in full by the help, and would have no sections.
    name.completer = tuple(exceptions.__all__)
    parser.set_defaults(run_command=_help, refuse=parser.error)


def read_sections() -> list[Section]:
    """Return the sections of the page in their order, the page itself first.

    Raises
    ------
    HPSearchError
        If the page is not there.
    """
    _, *parts = re.split(r"^(#+) (.+)\n", _page(), flags=re.MULTILINE)
    sections: list[Section] = []
    for level, title, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        is_group = len(level) < len("###")
        group = _anchor(title) if is_group else sections[-1].group
        sections.append(Section(title, text.strip(), group))
    return sections


def find_section(name: str, sections: Sequence[Section]) -> Section | None:
    """Find a section.

    Parameters
    ----------
    name : str
        Title or anchor; in any case, and with a module or a path before it.
    sections : sequence of Section
    """
    wanted = _wanted(name)
    return next((one for one in sections if one.anchor == wanted), None)


def nearest_titles(name: str, sections: Sequence[Section]) -> list[str]:
    """Return the titles that have a name as a part, and those that are most like it."""
    import difflib

    wanted = _wanted(name)
    titles = {one.anchor: one.title for one in sections}
    near = [anchor for anchor in titles if wanted and wanted in anchor]
    near += difflib.get_close_matches(wanted, titles)
    return [titles[anchor] for anchor in dict.fromkeys(near)][:_MOST_PROPOSALS]


def _help(arguments: Namespace) -> int:
    name = arguments.name
    sections = read_sections()
    section = sections[0] if name is None else find_section(name, sections)
    if section is None:
        near = ", ".join(nearest_titles(name, sections))
        way_out = f"did you mean {near}?" if near else f"list them: {_COMMAND}"
        arguments.refuse(f"no section {name!r}; {way_out}")
        return EXIT_USAGE
    print("\n\n".join(_blocks(section, sections)))
    return 0


def _wanted(name: str) -> str:
    return _anchor(re.split(r"[#.]", name.strip(":`'\" "))[-1])


def _page() -> str:
    """Return the page: from beside this module (in a wheel), or from the repository."""
    here = Path(__file__).parent
    for folder in (here, here.parents[1] / "docs"):
        if (folder / _PAGE).is_file():
            return (folder / _PAGE).read_text(encoding="utf-8")
    msg = f"this installation of dask_hpsearch has no {_PAGE}: install it again"
    raise exceptions.HPSearchError(msg)


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.strip()).lower()


# --- as text --------------------------------------------------------------------------


def _blocks(section: Section, sections: Sequence[Section]) -> Iterator[str]:
    """Yield a section's paragraphs, and what leads on from it."""
    width = _width()
    yield f"{section.title}\n{'=' * len(section.title)}"
    yield from _paragraphs(section.text, width)
    pages = _pages(section.text)
    if pages:
        yield _filled(f"More in the manual: {', '.join(pages)}", width)
    if section.anchor != section.group:
        yield f"Related: {_COMMAND} {section.group}"
        return
    for group in sections if section is sections[0] else [section]:
        below = [one for one in sections if one.group == group.anchor != one.anchor]
        title = f"{group.title}\n" if group is not section else ""
        if below:
            yield title + "\n".join(_row(one, width) for one in below)
    yield f"Show one: {_COMMAND} NAME"


def _paragraphs(text: str, width: int) -> Iterator[str]:
    for paragraph in _plain(text).split("\n\n"):
        items = re.split(r"^- ", paragraph, flags=re.MULTILINE)
        if len(items) == 1:
            yield _filled(paragraph, width)
        else:
            yield "\n".join(_filled(f"- {one}", width, "  ") for one in items[1:])


def _plain(markdown: str) -> str:
    """Leave out the marks of links and of bold text; those of code stay."""
    text = _LINK.sub(r"\1", markdown)
    return re.sub(r"\*\*(.+?)\*\*|<(https?://[^>]+)>", r"\1\2", text, flags=re.DOTALL)


def _pages(markdown: str) -> list[str]:
    targets = (target for _, target in _LINK.findall(markdown))
    return [f"docs/{target}" for target in targets if not target.startswith("#")]


def _row(section: Section, width: int) -> str:
    kind = getattr(exceptions, section.title)
    summary = (kind.__doc__ or "").partition("\n")[0].replace("``", "`")
    return _filled(f"  {section.title:<26} {summary}", width, " " * 29)


def _filled(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        text,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _width() -> int:
    import shutil

    return min(shutil.get_terminal_size().columns, _WIDEST)
