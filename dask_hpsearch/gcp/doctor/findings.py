"""The findings of `doctor`: problems of a project, and commands that fix them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dask_hpsearch.gcp.rest import Response


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of a project.

    Attributes
    ----------
    about : str
        Its subject, as "quota".
    problem : str
    command : str
        Fixes it; the user replaces words in capitals.
    """

    about: str
    problem: str
    command: str


@dataclass(frozen=True, slots=True)
class Report:
    """All findings.

    Attributes
    ----------
    findings : tuple of Finding
    unchecked : tuple of str
        What could not be checked, and why.
    """

    findings: tuple[Finding, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything was checked, without findings."""
        return not self.findings and not self.unchecked

    def __str__(self) -> str:
        lines = [
            f"{number}. {one.about}: {one.problem}\n   {one.command}"
            for number, one in enumerate(self.findings, 1)
        ]
        lines += [f"?  could not check {one}" for one in self.unchecked]
        return "\n".join(lines) or "no problems found"


class UncheckedError(Exception):
    """A check is not possible; the report says so, and the others go on.

    Attributes
    ----------
    disabled_api : str
        API to enable; empty if there is another reason.
    """

    def __init__(self, text: str, disabled_api: str = "") -> None:
        super().__init__(text)
        self.disabled_api = disabled_api

    @classmethod
    def of(cls, response: Response, subject: str) -> UncheckedError:
        """Return the error of a refused request."""
        return cls(f"{subject}: {response.reason}", response.disabled_api)
