"""Many fits of a journal as columns: compact in a store and in memory, and read at once."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.journal.events import FitEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

LEAST_ROWS = 8  # fewer fits take less space as events
KIND = "fits"  # of a stored object, beside the kinds of events
_DIGEST_NBYTES = 8
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class _Same:
    """A column whose values are all the same."""

    value: Any


@dataclass(frozen=True, slots=True)
class _Digests:
    """A column of digests of 16 digits."""

    content: bytes


# A column is an array of floats or of integers, one of the above, the columns of mappings with
# the same keys, or a list of other values.
Column = Any


@dataclass(frozen=True, slots=True, eq=False)
class FitColumns:
    """Fits of one call and generation whose results have the same keys.

    Attributes
    ----------
    generation, call : int
    times : ndarray of float
        Seconds since the epoch.
    candidates, splits : ndarray of int
    digests : column
    results : dict of str to column
        By the keys of an encoded result.
    """

    generation: int
    call: int
    times: NDArray[np.float64]
    candidates: NDArray[np.int64]
    splits: NDArray[np.int64]
    digests: Column
    results: dict[str, Column]

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def of(cls, fits: Sequence[FitEvent]) -> FitColumns:
        """Put fits together that `gathered` found to belong together."""
        first = fits[0]
        return cls(
            generation=first.generation,
            call=first.call,
            times=np.array([fit.time for fit in fits], dtype="<f8"),
            candidates=np.array([fit.candidate for fit in fits], dtype="<i8"),
            splits=np.array([fit.split for fit in fits], dtype="<i8"),
            digests=_column([fit.digest for fit in fits]),
            results={
                key: _column([fit.result[key] for fit in fits]) for key in first.result
            },
        )

    def events(self) -> Iterator[FitEvent]:
        """Iterate over the fits, in their order."""
        return map(self._event, range(len(self)))

    @property
    def newest_time(self) -> float:
        """When the last of the fits ended."""
        return float(self.times.max())

    def newest(self) -> FitEvent:
        """Return the fit that ended last."""
        return self._event(int(self.times.argmax()))

    def _event(self, place: int) -> FitEvent:
        return FitEvent(
            generation=self.generation,
            time=float(self.times[place]),
            call=self.call,
            candidate=int(self.candidates[place]),
            split=int(self.splits[place]),
            digest=_value(self.digests, place),
            result={key: _value(one, place) for key, one in self.results.items()},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the columns as they are stored."""
        return {
            "e": KIND,
            "g": self.generation,
            "c": self.call,
            "t": _packed(self.times),
            "i": _packed(self.candidates),
            "s": _packed(self.splits),
            "d": _packed(self.digests),
            "r": {key: _packed(one) for key, one in self.results.items()},
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> FitColumns:
        """Read stored columns.

        Raises
        ------
        ValueError
            If they are not what `to_json` returns.
        """
        try:
            return cls(
                generation=stored["g"],
                call=stored["c"],
                times=_unpacked(stored["t"]),
                candidates=_unpacked(stored["i"]),
                splits=_unpacked(stored["s"]),
                digests=_unpacked(stored["d"]),
                results={key: _unpacked(one) for key, one in stored["r"].items()},
            )
        except (AttributeError, KeyError, TypeError, zlib.error) as error:
            msg = f"invalid fits in a journal: {type(error).__name__}: {error}"
            raise ValueError(msg) from error

    def is_of(self, call: int, generation: int) -> bool:
        """Whether these are fits of a call in a generation of the run."""
        return (self.call, self.generation) == (call, generation)

    def scores(self, name: str | None) -> NDArray[np.float64]:
        """Return the test scores as floats, NaN where there is none.

        Parameters
        ----------
        name : str or None
            Which of several scores counts.
        """
        column = self.results.get("test_scores")
        if isinstance(column, dict):
            column = column.get(name)
        if isinstance(column, np.ndarray):
            return column.astype(np.float64)
        if column is None:
            return np.full(len(self), np.nan)
        values = (_value(column, place) for place in range(len(self)))
        return np.array([score_of(one, name) for one in values], dtype=np.float64)

    def failed(self) -> NDArray[np.bool_]:
        """Return which of the fits have an error."""
        column = self.results.get("fit_error")
        if column is None or isinstance(column, _Same):
            same = column is not None and column.value is not None
            return np.full(len(self), same)
        values = (_value(column, place) for place in range(len(self)))
        return np.array([one is not None for one in values])


def gathered(fits: Iterable[FitEvent]) -> tuple[list[FitColumns], list[FitEvent]]:
    """Put fits together where that saves space.

    Returns
    -------
    list of FitColumns
    list of FitEvent
        The others.
    """
    groups: dict[tuple[Any, ...], list[FitEvent]] = {}
    for fit in fits:
        key = fit.generation, fit.call, tuple(fit.result)
        groups.setdefault(key, []).append(fit)
    large = [group for group in groups.values() if len(group) >= LEAST_ROWS]
    small = [group for group in groups.values() if len(group) < LEAST_ROWS]
    return [FitColumns.of(group) for group in large], [
        one for group in small for one in group
    ]


def score_of(scores: Any, name: str | None) -> float:
    """Return a fit's stored score as a float; NaN if it has none."""
    if isinstance(scores, dict):
        scores = scores.get(name)
    number = isinstance(scores, int | float) and not isinstance(scores, bool)
    return float(scores) if number else float("nan")


# --- columns ------------------------------------------------------------------------------


def _column(values: list[Any]) -> Column:
    """Return values as a column; `_value` gives them back, with their types."""
    kinds = set(map(type, values))
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is float:
        return np.array(values, dtype="<f8")
    if kind is int and all(-(2**63) <= one < 2**63 for one in values):
        return np.array(values, dtype="<i8")
    if kind is str and all(_is_digest(one) for one in values):
        return _Digests(bytes.fromhex("".join(values)))
    if kind in {type(None), bool, str} and all(one == values[0] for one in values):
        return _Same(values[0])
    if kind is dict and all(tuple(one) == tuple(values[0]) for one in values):
        return {key: _column([one[key] for one in values]) for key in values[0]}
    return values


def _is_digest(text: str) -> bool:
    return len(text) == 2 * _DIGEST_NBYTES and _HEX.issuperset(text)


def _value(column: Column, place: int) -> Any:
    """Return a value of a column, of the type that it had."""
    if isinstance(column, np.ndarray):
        return column[place].item()
    if isinstance(column, _Same):
        return column.value
    if isinstance(column, _Digests):
        at = _DIGEST_NBYTES * place
        return column.content[at : at + _DIGEST_NBYTES].hex()
    if isinstance(column, dict):
        return {key: _value(one, place) for key, one in column.items()}
    return column[place]


def _packed(column: Column) -> Any:
    """Return a column as JSON: a list, or a mapping that names its kind."""
    if isinstance(column, np.ndarray):
        return {column.dtype.kind: _text(column.tobytes())}
    if isinstance(column, _Same):
        return {"same": column.value}
    if isinstance(column, _Digests):
        return {"d": _text(column.content)}
    if isinstance(column, dict):
        return {"by": {key: _packed(one) for key, one in column.items()}}
    return column


def _unpacked(packed: Any) -> Column:
    if isinstance(packed, list):
        return packed
    ((kind, content),) = packed.items()
    if kind in {"f", "i"}:
        return np.frombuffer(_content(content), dtype=f"<{kind}8")
    if kind == "same":
        return _Same(content)
    if kind == "d":
        return _Digests(_content(content))
    return {key: _unpacked(one) for key, one in content.items()}


def _text(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, level=1)).decode("ascii")


def _content(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
