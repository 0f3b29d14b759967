"""The progress of a search as text, for terminals, notebooks and files."""

from __future__ import annotations

from reprlib import Repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.progress.state import ProgressSnapshot, SearchProgress

VALUE_LENGTH = 60
PARAMS_LENGTH = 400
ELLIPSIS = "..."
# Ends that the user has asked for by a score.
_ENDS = {"stop_score": "score reached", "patience": "no improvement"}


def fits(snapshot: ProgressSnapshot) -> str:
    """Return the numbers of finished, known and failed fits, and of dropped candidates."""
    text = f"{snapshot.fits_done:,}/{snapshot.fits_total:,} fits"
    return text + _failed(snapshot) + _dropped(snapshot)


def pace(snapshot: ProgressSnapshot) -> str:
    """Return rate, elapsed and remaining time, cost, workers and slots."""
    parts = [f"{duration(snapshot.elapsed)} elapsed"]
    if snapshot.fits_done:
        parts.insert(0, _rate(snapshot.rate))
    if snapshot.eta is not None and snapshot.fits_done < snapshot.fits_total:
        parts.append(f"about {duration(snapshot.eta)} left")
    if snapshot.cost_usd is not None:
        parts.append(cost(snapshot.cost_usd))
    parts.append(
        f"{_count(snapshot.workers, 'worker')}, {_count(snapshot.slots, 'slot')} "
        f"({snapshot.running:,} busy)"
    )
    return " · ".join(parts)


def cost(usd: float) -> str:
    """Return the cost of a search so far."""
    cents = round(usd * 100)
    return f"about ${cents / 100:,.2f}" if cents else "less than $0.01"


def problem(snapshot: ProgressSnapshot) -> list[str]:
    """Return the cluster's problem as one line; no line if there is none."""
    text = _cut(printable(f"cluster: {snapshot.problem}"), PARAMS_LENGTH)
    return [text] if snapshot.problem else []


def best(snapshot: ProgressSnapshot) -> str:
    """Return the best candidate so far."""
    if snapshot.best_params is None:
        return "no complete candidate yet"
    score = "" if snapshot.best_score is None else f" {score_text(snapshot.best_score)}"
    return f"best{score}: {shorten_params(snapshot.best_params)}"


def lines(snapshot: ProgressSnapshot) -> list[str]:
    """Return the progress as a few lines."""
    return [fits(snapshot), pace(snapshot), best(snapshot), *problem(snapshot)]


def line(snapshot: ProgressSnapshot) -> str:
    """Return the whole progress as one line."""
    parts = [fits(snapshot), pace(snapshot), best(snapshot), *problem(snapshot)]
    return f"Search: {' · '.join(parts)}"


def closing(progress: SearchProgress) -> list[str]:
    """Return how a search ended and, if that was early, the next step."""
    return ending(progress.snapshot(), progress.hint)


def ending(snapshot: ProgressSnapshot, hint: str) -> list[str]:
    """Return the same for a snapshot and the next step, "" if there is none."""
    asked = snapshot.reason is None or snapshot.reason in _ENDS
    early = not (snapshot.ended and asked)
    return [summary(snapshot), *([printable(hint)] if hint and early else [])]


def summary(snapshot: ProgressSnapshot) -> str:
    """Return a summary of a search that has ended or is no longer shown."""
    if not snapshot.ended:
        state = f"Search {snapshot.reason or 'ended'}"
    elif snapshot.reason is None:
        state = "Search done"
    elif snapshot.reason in _ENDS:
        state = f"Search stopped: {_ENDS[snapshot.reason]}"
    else:
        state = f"Search stopped ({snapshot.reason})"
    fits_done = _count(snapshot.fits_done, "fit")
    if snapshot.fits_done < snapshot.fits_total:
        fits_done = f"{snapshot.fits_done:,} of {_count(snapshot.fits_total, 'fit')}"
    text = f"{state}: {fits_done}{_failed(snapshot)}{_dropped(snapshot)}"
    text += f", {duration(snapshot.elapsed)}"
    if snapshot.cost_usd is not None:
        text += f", {cost(snapshot.cost_usd)}"
    if snapshot.best_params is not None:
        text += f"; {best(snapshot)}"
    return text


def shorten_params(params: Mapping[str, Any]) -> str:
    """Return parameters as one line; long values and long lists are cut."""
    text = ", ".join(f"{name}={shorten_value(value)}" for name, value in params.items())
    return _cut(printable(text), PARAMS_LENGTH) or "default parameters"


class _ShortRepr(Repr):
    """Never writes out a large container, and never raises."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = VALUE_LENGTH

    def repr_instance(self, x: Any, level: int) -> str:  # noqa: ARG002 (Repr's signature)
        try:
            text = repr(_plain(x))
        except Exception:  # noqa: BLE001 (a user's __repr__ must not end the display)
            text = f"<{type(x).__name__}>"
        # Estimators and arrays span several lines: drop their indentation.
        return _cut(" ".join(text[:1000].split()), VALUE_LENGTH)


def shorten_value(value: Any) -> str:
    """Return a value as a short text, whatever it is."""
    try:
        return _cut(_ShortRepr().repr(value), VALUE_LENGTH)
    except Exception:  # noqa: BLE001 (nor must a container that fails)
        return f"<{type(value).__name__}>"


def _plain(value: Any) -> Any:
    """Return Python's own number for one of numpy, whose ``repr`` names its type."""
    is_numpys = type(value).__module__ == "numpy"
    return value.item() if is_numpys and getattr(value, "shape", None) == () else value


def printable(text: str) -> str:
    """Replace characters that move a terminal's cursor or start a new line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - len(ELLIPSIS)] + ELLIPSIS


def _failed(snapshot: ProgressSnapshot) -> str:
    return f", {snapshot.fits_failed:,} failed" if snapshot.fits_failed else ""


def _dropped(snapshot: ProgressSnapshot) -> str:
    dropped = _count(snapshot.dropped, "candidate")
    return f", {dropped} dropped" if snapshot.dropped else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _rate(rate: float) -> str:
    """Return fits per second, or per minute if that is less than one."""
    return f"{rate:,.1f} fits/s" if rate >= 1 else f"{rate * 60:.1f} fits/min"


def duration(seconds: float) -> str:
    """Return seconds as minutes and seconds, or with hours."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def score_text(score: float) -> str:
    """Return a score with four digits."""
    plain = score == 0 or 1e-3 <= abs(score) < 1e4  # noqa: PLR2004 (four digits suffice)
    return f"{score:.4f}" if plain else f"{score:.4g}"
