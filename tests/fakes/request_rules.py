"""Checks requests field by field, as the installed clients describe their messages.

Google refuses unknown values, ignores fields that it only returns, and refuses some
combinations; those are in ``refused.toml``, each with its source.
"""

from __future__ import annotations

import functools
import inspect
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.unknown_fields import UnknownFieldSet

from tests.fakes.serving import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATTRIBUTE = re.compile(
    r"^ {4}(\w+) \([^\n]*\):\n((?: {8}.*\n|[ \t]*\n)+)", re.MULTILINE
)
_OUTPUT = re.compile(r"\[?Output only", re.IGNORECASE)
_DEPRECATED = re.compile(
    r"(\[Output only\] )?(\[?Deprecated|This field is deprecated)", re.IGNORECASE
)
_RULES = Path(__file__).with_name("refused.toml")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request that is set.

    Attributes
    ----------
    path : str
        As ``node_pools.config.spot``, without indices.
    value : object
    described : str
        What the installed client says of it.
    number_is_known : bool
        Whether an enumeration has a member of this value.
    """

    path: str
    value: Any
    described: str
    number_is_known: bool = True


def check(message: Any) -> None:
    """Refuse a request that Google would refuse, or of which it would ignore a part."""
    wrong = problems(message)
    if wrong:
        raise Refused("INVALID_ARGUMENT", "; ".join(wrong))
    for rule in rules():
        if rule["request"] == type(message).__name__:
            _apply(rule, message)


def problems(message: Any) -> list[str]:
    """Return what is wrong with single fields of a request."""
    found = [f"unknown fields in {path}" for path in _with_unknown_fields(message)]
    for one in walk(message):
        if _OUTPUT.match(one.described):
            found.append(f"{one.path} is set, which Google only returns")
        elif _DEPRECATED.match(one.described):
            found.append(f"{one.path} is deprecated")
        if not one.number_is_known:
            found.append(f"{one.path} has no value {one.value}")
    return found


def walk(message: Any, prefix: str = "") -> Iterator[Field]:
    """Yield all fields that are set in a message and its parts."""
    described = described_fields(type(message))
    for descriptor, raw in type(message).pb(message).ListFields():
        name = descriptor.name
        path, enum = prefix + name, descriptor.enum_type
        # proto-plus warns of numbers that an enumeration has not
        value = raw if enum else getattr(message, name)
        values = list(value) if descriptor.is_repeated else [value]
        known = not enum or all(one in enum.values_by_number for one in values)
        yield Field(path, value, described.get(name, ""), known)
        for part in values:
            if hasattr(type(part), "pb"):
                yield from walk(part, f"{path}.")


@functools.cache
def described_fields(kind: Any) -> dict[str, str]:
    """Return what an installed client says of each field of a message."""
    text = inspect.cleandoc(kind.__doc__ or "") + "\n"
    _, _, attributes = text.partition("Attributes:")
    return {
        match[1]: " ".join(match[2].split())
        for match in _ATTRIBUTE.finditer(attributes)
    }


@functools.cache
def rules() -> tuple[dict[str, Any], ...]:
    """Return the combinations that Google refuses."""
    return tuple(tomllib.loads(_RULES.read_text(encoding="utf-8"))["rule"])


def _apply(rule: dict[str, Any], message: Any) -> None:
    matched = []
    for path, pattern in rule["when"].items():
        values = [_text(one) for one in _values(message, path.split("."))]
        fitting = [one for one in values or [""] if re.fullmatch(pattern, one)]
        if not fitting:
            return
        matched.append(fitting[0])
    raise Refused(rule["code"], rule["message"].format(*matched))


def _values(message: Any, path: list[str]) -> Iterator[Any]:
    name, *rest = path
    value = getattr(message, name)
    repeated = hasattr(value, "append")
    for one in value if repeated else [value]:
        if rest:
            yield from _values(one, rest)
        else:
            yield one


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "name", value))


def _with_unknown_fields(message: Any, path: str = "") -> Iterator[str]:
    raw = type(message).pb(message)
    if len(UnknownFieldSet(raw)):
        yield path or type(message).__name__
    for one in walk(message):
        parts = one.value if hasattr(one.value, "append") else [one.value]
        for part in parts:
            if hasattr(type(part), "pb") and len(UnknownFieldSet(type(part).pb(part))):
                yield one.path
