"""Callbacks of scikit-learn 1.9's protocol, which slots import by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Notes:
    """Writes every hook's call to a file, with its place in the tree of tasks."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.calls = 0

    def setup(self, estimator: Any, context: Any) -> None:
        self._note("setup", estimator, context)

    def teardown(self, estimator: Any, context: Any) -> None:
        self._note("teardown", estimator, context)

    def on_fit_task_begin(self, estimator: Any, context: Any, *, y: Any = None) -> None:
        self._note("begin", estimator, context, None if y is None else len(y))

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        self._note("end", estimator, context)

    def _note(self, hook: str, estimator: Any, context: Any, *more: Any) -> None:
        self.calls += 1
        way, one = [], context
        while one is not None:
            way.append([one.estimator_name, one.task_name, one.task_id])
            one = one.parent
        entry = [hook, type(estimator).__name__, way, *more]
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read(self) -> list[str]:
        """Return what was noted, in an order that does not depend on who was first."""
        return sorted(Path(self.path).read_text(encoding="utf-8").splitlines())


class PropagatedNotes(Notes):
    """Follows a search into its estimators."""

    max_propagation_depth = None
