"""The candidates of a run as a table: filtered, sorted and cut into pages by the server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.live.candidates import Status
from dask_hpsearch.live.state import shown_params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.live.candidates import CandidateProgress
    from dask_hpsearch.live.state import Params

MOST_ROWS = 200
_PARAM = "param:"
COLUMNS = ("candidate", "score", "status", "fits", "ended")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which part of a table to show.

    Attributes
    ----------
    sort : str
        One of `COLUMNS`, or ``param:`` and a parameter's name.
    descending : bool
    text : str
        Only candidates with this text in a parameter ("name=value").
    status : str
        Only candidates with this status; empty: all.
    offset, limit : int
    """

    sort: str = "score"
    descending: bool = True
    text: str = ""
    status: str = ""
    offset: int = 0
    limit: int = 50

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> Query:
        """Read the arguments of a URL.

        Raises
        ------
        ValueError
            If a number is not a number.
        """
        sort = arguments.get("sort", "score")
        known = sort in COLUMNS or sort.startswith(_PARAM)
        return cls(
            sort=sort if known else "score",
            descending=arguments.get("order", "desc") != "asc",
            text=arguments.get("q", "").strip().lower(),
            status=arguments.get("status", ""),
            offset=max(0, int(arguments.get("offset", "0"))),
            limit=min(MOST_ROWS, max(1, int(arguments.get("limit", "50")))),
        )


class TrialsTable:
    """Reads pages of a run's candidates; remembers parameters as texts."""

    def __init__(self) -> None:
        self._texts: dict[tuple[int, int], Params] = {}

    def page(self, progress: CandidateProgress, query: Query) -> dict[str, Any]:
        """Return a page as values that JSON has."""
        found = progress.candidates()
        rows = range(len(found))
        keys = list(zip(found.calls.tolist(), found.numbers.tolist(), strict=True))
        statuses = [Status(one).name.lower() for one in found.status.tolist()]
        params = [self._params(progress, key) for key in keys]
        names = list(dict.fromkeys(name for one in params for name, _ in one))
        if query.status:
            rows = [row for row in rows if statuses[row] == query.status]  # type: ignore[assignment]
        if query.text:
            rows = [row for row in rows if _matches(params[row], query.text)]  # type: ignore[assignment]
        columns: dict[str, list[Any]] = {
            "candidate": keys,
            "score": found.scores.tolist(),
            "status": statuses,
            "fits": found.n_fits.tolist(),
            "ended": found.ends.tolist(),
        }
        if query.sort.startswith(_PARAM):
            name = query.sort.removeprefix(_PARAM)
            values = [progress.params_of(*keys[row]).get(name) for row in rows]
        else:
            values = [columns[query.sort][row] for row in rows]
        ordered = _ordered(list(rows), values, descending=query.descending)
        shown = ordered[query.offset : query.offset + query.limit]
        several = len(set(found.calls.tolist())) > 1
        return {
            "total": len(found),
            "found": len(ordered),
            "offset": query.offset,
            "params": names,
            "rows": [
                {
                    "candidate": f"{keys[row][0]}.{keys[row][1]}"
                    if several
                    else str(keys[row][1]),
                    "score": _finite(columns["score"][row]),
                    "status": statuses[row],
                    "fits": columns["fits"][row],
                    "ended": _finite(columns["ended"][row]),
                    "params": dict(params[row]),
                }
                for row in shown
            ],
        }

    def _params(self, progress: CandidateProgress, key: tuple[int, int]) -> Params:
        if key not in self._texts:
            self._texts[key] = shown_params(progress.params_of(*key))
        return self._texts[key]


def _matches(params: Params, text: str) -> bool:
    return any(text in f"{name}={value}".lower() for name, value in params)


def _ordered(rows: list[int], values: list[Any], *, descending: bool) -> list[int]:
    """Order rows by values of any kind; those without a value come last."""
    numbers: list[tuple[float, int]] = []
    texts: list[tuple[Any, int]] = []
    missing: list[int] = []
    for row, value in zip(rows, values, strict=True):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            missing.append(row)
        elif isinstance(value, int | float):
            numbers.append((float(value), row))
        else:
            texts.append((value if isinstance(value, tuple) else str(value), row))
    ordered = []
    for group in (numbers, texts):
        group.sort(key=lambda one: one[0], reverse=descending)
        ordered += [row for _, row in group]
    return ordered + missing


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
