"""The findings of `doctor`: problems of a project, and commands that fix them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dask_hpsearch.gcp.rest import Response


_WAITING = (
    "Not yet possible: the project has no identity pool. GKE creates it together with the "
    "first GKE cluster that has Workload Identity; until then IAM refuses these bindings "
    '("Identity Pool does not exist"). gke_cluster and dask-hpsearch up wait for them once '
    "the GKE cluster exists, or make them with bind=True and --bind:"
)
_ADVICE = "The following works, but allows more than is necessary:"


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
    needs_pool : bool
        Whether the command works only once the project's identity pool exists, or belongs
        to one that does.
    optional : bool
        Whether all works without it, too.
    """

    about: str
    problem: str
    command: str
    needs_pool: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """All findings.

    Attributes
    ----------
    findings : tuple of Finding
    unchecked : tuple of str
        What could not be checked, and why.
    waiting : tuple of Finding
        Bindings that cannot be made before the project's first GKE cluster.
    advice : tuple of Finding
        What works, and should be changed all the same.
    """

    findings: tuple[Finding, ...] = ()
    unchecked: tuple[str, ...] = ()
    waiting: tuple[Finding, ...] = ()
    advice: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether a GKE cluster can be created: all was checked, without findings."""
        return not self.findings and not self.unchecked

    def __str__(self) -> str:
        lines = [
            f"{number}. {one.about}: {one.problem}\n   {one.command}"
            for number, one in enumerate(self.findings, 1)
        ]
        lines += [f"?  could not check {one}" for one in self.unchecked]
        if self.waiting:
            lines += [_WAITING]
            lines += [f"-  {one.problem}\n   {one.command}" for one in self.waiting]
        if self.advice:
            lines += [_ADVICE]
            lines += [f"-  {one.problem}\n   {one.command}" for one in self.advice]
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
