"""What `doctor` finds in a project: what is wrong, and the one command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dask_hpsearch.gcp.rest import Answer


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    about : str
        A word for it, as "quota".
    problem : str
    command : str
        Mends it; words in capitals are the user's to replace.
    """

    about: str
    problem: str
    command: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found.

    Attributes
    ----------
    findings : tuple of Finding
    unseen : tuple of str
        What could not be looked at, and why.
    """

    findings: tuple[Finding, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, and everything could be looked at."""
        return not self.findings and not self.unseen

    def __str__(self) -> str:
        lines = [
            f"{number}. {one.about}: {one.problem}\n   {one.command}"
            for number, one in enumerate(self.findings, 1)
        ]
        lines += [f"?  could not look at {unseen}" for unseen in self.unseen]
        return "\n".join(lines) or "nothing is lacking"


class UnseenError(Exception):
    """Something cannot be looked at; the report says so, and goes on.

    Attributes
    ----------
    disabled_api : str
        What must be enabled for that; empty if it is something else.
    """

    def __init__(self, text: str, disabled_api: str = "") -> None:
        super().__init__(text)
        self.disabled_api = disabled_api

    @classmethod
    def of(cls, answer: Answer, what: str) -> UnseenError:
        """Say that a service refused to tell something."""
        return cls(f"{what}: {answer.reason}", answer.disabled_api)
