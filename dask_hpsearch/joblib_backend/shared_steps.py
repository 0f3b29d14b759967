"""Which first steps of a pipeline the candidates of a call have in common."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from typing import TYPE_CHECKING, Any

from sklearn.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

_NOTHING_SHARED = 0
_MOST_COMPARED = 100_000
_MOST_NUMBERED = 100_000


class SharedSteps:
    """The steps that fits of one call share, found by comparing parameters.

    Parameters
    ----------
    estimator : estimator
        Of the call; only of a `Pipeline` steps are shared.
    candidates : sequence of dict, or None
        All that the call evaluates; None: they are not known yet. Of very many, any two
        may share their steps.
    """

    def __init__(
        self, estimator: Any, candidates: Sequence[Mapping[str, Any]] | None
    ) -> None:
        is_pipeline = type(estimator) is Pipeline and estimator.memory is None
        self._names = [name for name, _ in estimator.steps] if is_pipeline else []
        self._candidates_of: Counter[Hashable] | None = None
        known = candidates is not None and len(candidates) <= _MOST_COMPARED
        if known and self._names:
            self._candidates_of = Counter()
            for candidate in candidates or ():
                self._candidates_of.update(self._leading_steps(candidate))
        self._numbers: dict[Hashable, int] = {}
        self._next_number = itertools.count()

    def of(self, parameters: Mapping[str, Any] | None) -> tuple[int, Hashable]:
        """Return how many first steps a candidate shares, and what tells them from others.

        Parameters
        ----------
        parameters : mapping of str to object, or None
            The candidate.
        """
        leading = self._leading_steps(parameters or {})
        if self._candidates_of is not None:
            shared = [self._candidates_of[steps] > 1 for steps in leading]
            while shared and not shared[-1]:
                shared.pop()
                leading.pop()
        if not leading:
            return _NOTHING_SHARED, None
        return len(leading), leading[-1]

    def number(self, split: str, steps: Hashable) -> int:
        """Return the number of the fits that have this split and these steps."""
        known = self._numbers.get((split, steps))
        if known is not None:
            return known
        if len(self._numbers) >= _MOST_NUMBERED:  # mostly of fits that have ended
            self._numbers.clear()
        number = self._numbers[split, steps] = next(self._next_number)
        return number

    def _leading_steps(self, parameters: Mapping[str, Any]) -> list[Hashable]:
        """Name the first step, the first two, … but the last, by their parameters."""
        if not self._names or "steps" in parameters or "memory" in parameters:
            return []
        of_step: dict[str, list[tuple[str, Hashable]]] = {}
        for key in sorted(parameters):
            step = key.partition("__")[0]
            of_step.setdefault(step, []).append((key, _name_of(parameters[key])))
        leading: list[Hashable] = []
        so_far: Hashable = ()
        for name in self._names[:-1]:
            so_far = so_far, name, tuple(of_step.get(name, ()))
            leading.append(so_far)
        return leading


def _name_of(value: Any) -> Hashable:
    """Return what tells a parameter's value from others."""
    if isinstance(value, str | int | float | None):
        return type(value).__name__, repr(value)
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 (it is the user's)
        return id(value)  # a grid gives the same object to several candidates
