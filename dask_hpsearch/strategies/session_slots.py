"""The slots of a search's engine, as a strategy uses them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.engine.tasks import TaskGroup
    from dask_hpsearch.joblib_backend.session import Session
    from dask_hpsearch.recorder.call import RecordedCall
    from dask_hpsearch.sklearn_adapter import FitCall


class SessionSlots:
    """The engine's slots, for the fits of a captured call.

    Parameters
    ----------
    session : Session
    call : FitCall
        The captured one.
    recorded : RecordedCall
        With the candidates that are asked.
    """

    def __init__(self, session: Session, call: FitCall, recorded: RecordedCall) -> None:
        self._session = session
        self._call = call
        self._recorded = recorded
        self._groups: dict[int, TaskGroup] = {}

    @property
    def slots(self) -> int:
        """Number of slots now."""
        return self._session.slots

    def submit(
        self,
        space: int,
        candidate: int,
        split: int,
        done: Callable[[Any], None],
    ) -> None:
        """Run a fit; ``done`` gets its result, its error, or `DROPPED`."""
        train, test = self._recorded.splits[split]
        call = dataclasses.replace(
            self._call,
            train=train,
            test=test,
            parameters=self._recorded.candidates[candidate],
            candidate=candidate,
            split=split,
        )
        if space not in self._groups:
            self._groups[space] = self._session.new_group()
        self._session.submit_fit(call, self._groups[space], done)

    def cancel(self, space: int) -> None:
        """End the fits of a space."""
        if space in self._groups:
            self._session.cancel(self._groups.pop(space))

    def drop(self, candidate: int) -> None:
        """Keep the waiting fits of a candidate from beginning."""
        self._session.drop([candidate])
