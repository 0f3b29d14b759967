"""Directive ``command-reference``: the manual of ``dask-hpsearch``, from its own parser."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive

from dask_hpsearch import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

_WIDTH = 88


class CommandReference(Directive):
    """A section for each command: what it does, its usage, its arguments."""

    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return [_section(parser) for parser in commands(cli._parser())]


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Find the parsers of all commands, those of their own commands after them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield one
                yield from commands(one)


def _section(parser: argparse.ArgumentParser) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(parser.prog)], names=[parser.prog])
    section += nodes.title("", parser.prog)
    if parser.description:
        section += nodes.paragraph("", parser.description)
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    section += nodes.literal_block(usage, usage, language="text")
    rows = [_row(parser, action) for action in parser._actions if _is_shown(action)]
    if rows:
        section += nodes.definition_list("", *rows)
    return section


def _is_shown(action: argparse.Action) -> bool:
    hidden = (argparse._HelpAction, argparse._SubParsersAction)
    return not isinstance(action, hidden) and action.help != argparse.SUPPRESS


def _row(
    parser: argparse.ArgumentParser, action: argparse.Action
) -> nodes.definition_list_item:
    formatter = parser.formatter_class(prog=parser.prog, width=_WIDTH)
    name = formatter._format_action_invocation(action)
    text = formatter._expand_help(action) if action.help else ""
    return nodes.definition_list_item(
        "",
        nodes.term("", "", nodes.literal("", name)),
        nodes.definition("", nodes.paragraph("", text)),
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True}
