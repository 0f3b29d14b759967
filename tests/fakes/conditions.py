"""IAM conditions, as Google evaluates those that this package writes.

A small part of the Common Expression Language: comparisons of ``resource.type``,
``resource.name`` and ``resource.service`` with texts, ``startsWith``, ``!``, ``&&``, ``||``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<name>[A-Za-z_.]+)|(?P<sign>&&|\|\||==|!=|[()!]))"
)


@dataclass(frozen=True, slots=True)
class Resource:
    """What is asked for, as IAM knows it.

    Attributes
    ----------
    type : str
        As ``container.googleapis.com/Clusters``.
    name : str
        As ``projects/P/zones/Z/clusters/C``.
    """

    type: str
    name: str

    @property
    def service(self) -> str:
        """The service that has it."""
        return self.type.partition("/")[0]


class ConditionSyntaxError(ValueError):
    """Google would refuse to set such a condition."""


def holds(expression: str, resource: Resource) -> bool:
    """Evaluate a condition.

    Raises
    ------
    ConditionSyntaxError
        If the expression uses more than this part of the language.
    """
    parser = _Parser(_tokens(expression), resource)
    result = parser.either()
    if parser.left:
        raise ConditionSyntaxError(expression)
    return result


def cluster(path: str) -> Resource:
    """Return a GKE cluster as IAM knows it: zonal and regional names differ.

    Parameters
    ----------
    path : str
        As GKE's API takes it: ``projects/P/locations/L/clusters/C``.
    """
    _, project, _, location, _, name = path.split("/")
    kind = "zones" if re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", location) else "locations"
    path = f"projects/{project}/{kind}/{location}/clusters/{name}"
    return Resource("container.googleapis.com/Clusters", path)


def project(name: str) -> Resource:
    """Return a project, where permissions are looked for that no condition can tell apart."""
    return Resource("cloudresourcemanager.googleapis.com/Project", f"projects/{name}")


def bucket(name: str) -> Resource:
    """Return a bucket: what may be listed is a matter of the bucket, not of its objects."""
    return Resource("storage.googleapis.com/Bucket", f"projects/_/buckets/{name}")


def stored_object(bucket: str, name: str) -> Resource:
    """Return an object in a bucket."""
    path = f"projects/_/buckets/{bucket}/objects/{name}"
    return Resource("storage.googleapis.com/Object", path)


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, position, text = [], 0, expression.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ConditionSyntaxError(expression)
        found.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]], resource: Resource) -> None:
        self.left, self._resource = tokens, resource

    def either(self) -> bool:
        results = [self._both()]
        while self._take("||"):
            results.append(self._both())
        return any(results)

    def _both(self) -> bool:
        results = [self._single()]
        while self._take("&&"):
            results.append(self._single())
        return all(results)

    def _single(self) -> bool:
        if self._take("!"):
            return not self._single()
        if self._take("("):
            result = self.either()
            self._need(")")
            return result
        name = self._next("name")
        attribute = name.removesuffix(".startsWith")
        value = self._value(attribute)
        if attribute != name:
            self._need("(")
            prefix = self._next("text")[1:-1]
            self._need(")")
            return value.startswith(prefix)
        compare: Callable[[str, str], bool] = str.__eq__
        if not self._take("=="):
            self._need("!=")
            compare = str.__ne__
        return compare(value, self._next("text")[1:-1])

    def _value(self, attribute: str) -> str:
        kind, _, name = attribute.partition(".")
        if kind != "resource" or name not in ("type", "name", "service"):
            raise ConditionSyntaxError(attribute)
        return str(getattr(self._resource, name))

    def _take(self, sign: str) -> bool:
        if self.left and self.left[0] == ("sign", sign):
            self.left.pop(0)
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise ConditionSyntaxError(sign)

    def _next(self, kind: str) -> str:
        if not self.left or self.left[0][0] != kind:
            raise ConditionSyntaxError(kind)
        return self.left.pop(0)[1]
