"""Exit codes and argument types that all commands share."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def positive(text: str) -> int:
    """Parse a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"must be a positive integer, got {text}"
        raise ArgumentTypeError(msg)
    return int(text)


def add_addresses(parser: ArgumentParser) -> None:
    """Add the option that names endpoints of Google's services."""
    parser.add_argument(
        "--address",
        type=_address,
        action="append",
        default=[],
        metavar="SERVICE=URL",
        help="endpoint of a service, if it is not the public one",
    )


def _address(text: str) -> tuple[str, str]:
    service, equals, url = text.partition("=")
    if not equals or "://" not in url:
        msg = (
            f"must be SERVICE=URL, as compute=https://compute.example.com, got {text!r}"
        )
        raise ArgumentTypeError(msg)
    return service, url
