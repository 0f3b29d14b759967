"""The charts of the live view, as SVG whose colours come from ``live.css``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from dask_hpsearch.progress import text
from dask_hpsearch.progress.score_limits import score_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask_hpsearch.live.state import Curve

_N_TICKS = 4
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_FAILED_SIZE = 3.5
_DENSE = 60  # points; more are smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """Maps values to places of a picture.

    Attributes
    ----------
    width, height : float
    left, right, top, bottom : float
        Margins.
    x_low, x_high, y_low, y_high : float
        The ranges of values.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        room = self.width - self.left - self.right
        span = (self.x_high - self.x_low) or 1.0
        return self.left + room * (value - self.x_low) / span

    def y(self, value: float) -> float:
        room = self.height - self.top - self.bottom
        span = (self.y_high - self.y_low) or 1.0
        return self.height - self.bottom - room * (value - self.y_low) / span

    @property
    def floor(self) -> float:
        """The place of the lower edge."""
        return self.height - self.bottom


def history_chart(curve: Curve, *, width: int = 560, height: int = 300) -> str:
    """Draw candidates in the order of their ends, and the best score so far."""
    known = [one for one in curve.scores if one is not None]
    if not curve.n:
        return _empty(width, height, "no complete candidate yet")
    low, high = _limits([*known, *curve.best])
    frame = _Frame(
        width=width,
        height=height,
        left=54,
        right=14,
        top=16,
        bottom=32,
        x_low=1 if curve.n > 1 else 0,
        x_high=max(curve.n, 2),
        y_low=low,
        y_high=high,
    )
    # So many that the chart has room for each.
    radius = 3.0 if len(known) <= _DENSE else 2.2
    parts = [_grid(frame), _x_axis(frame, curve.n)]
    for x, score in zip(curve.x, curve.scores, strict=True):
        if score is None:
            parts.append(_cross(frame.x(x), frame.floor - 7))
        elif score < low:
            parts.append(_below(frame.x(x), frame.floor - 6))
        else:
            parts.append(
                f'<circle class="dhps-point" cx="{frame.x(x):.1f}" '
                f'cy="{frame.y(score):.1f}" r="{radius}">'
                f"<title>candidate {x:,}: {text.score_text(score)}</title></circle>"
            )
    parts.append(_best_line(frame, curve))
    label = f"Scores of {curve.n:,} candidates in the order in which they ended"
    if curve.best:
        label += f"; best so far {text.score_text(curve.best[-1])}"
    return _svg(width, height, label, parts)


def slice_chart(
    name: str,
    values: Sequence[str],
    scores: Sequence[float],
    numbers: Sequence[float] | None,
    *,
    log: bool = False,
    width: int = 300,
    height: int = 190,
) -> str:
    """Draw the scores of candidates over one parameter.

    Parameters
    ----------
    name : str
    values : sequence of str
        Of each candidate.
    scores : sequence of float
    numbers : sequence of float or None
        The values as numbers; None: they are categories.
    log : bool
        Whether the numbers have a logarithmic axis.
    """
    low, high = _limits(scores)
    places: Sequence[float]
    if numbers is None:
        categories = list(dict.fromkeys(values))
        place_of = {one: float(place) for place, one in enumerate(categories)}
        places = [place_of[one] for one in values]
        x_low, x_high = -0.5, len(categories) - 0.5
        ticks = [(place_of[one], one) for one in categories[: _N_TICKS + 2]]
    else:
        places = [math.log10(one) for one in numbers] if log else list(numbers)
        x_low, x_high = min(places), max(places)
        pad = 0.04 * (x_high - x_low) or 0.5
        x_low, x_high = x_low - pad, x_high + pad
        ticks = _log_ticks(x_low, x_high) if log else _linear_ticks(x_low, x_high)
    frame = _Frame(
        width=width,
        height=height,
        left=48,
        right=10,
        top=10,
        bottom=26,
        x_low=x_low,
        x_high=x_high,
        y_low=low,
        y_high=high,
    )
    parts = [_grid(frame)]
    parts += [_x_label(frame, at, label) for at, label in ticks]
    best = int(np.nanargmax(scores))
    for row, (place, score) in enumerate(zip(places, scores, strict=True)):
        if score < low:
            parts.append(_below(frame.x(place), frame.floor - 6))
            continue
        parts.append(
            f'<circle class="dhps-point" cx="{frame.x(place):.1f}" '
            f'cy="{frame.y(score):.1f}" r="2.6"><title>{escape(values[row])}: '
            f"{text.score_text(score)}</title></circle>"
        )
    parts.append(_ring(frame.x(places[best]), frame.y(scores[best])))
    return _svg(width, height, f"Scores over {name}", parts)


def slots_strip(slots: int, busy: int) -> str:
    """Draw each slot as a dot, filled if it is busy; a bar if there are many."""
    most, step = 24, 11
    if not slots:
        return ""
    label = f"{busy} of {slots} slots busy"
    if slots <= most:
        dots = [
            f'<circle class="dhps-slot{" dhps-busy" if place < busy else ""}" '
            f'cx="{5 + step * place}" cy="5" r="4"/>'
            for place in range(slots)
        ]
        width = step * slots
    else:
        width = 140
        share = width * min(busy / slots, 1)
        dots = [
            f'<rect class="dhps-slot" x="0" y="2" width="{width}" height="6" rx="3"/>',
            f'<rect class="dhps-busy" x="0" y="2" width="{share:.1f}" height="6" rx="3"/>',
        ]
    return (
        f'<svg class="dhps-slots" width="{width}" height="10" '
        f'viewBox="0 0 {width} 10" role="img" aria-label="{label}">{"".join(dots)}</svg>'
    )


# --- parts ------------------------------------------------------------------------------


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="dhps-chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _empty(width: int, height: int, words: str) -> str:
    middle = f'x="{width / 2}" y="{height / 2}" text-anchor="middle"'
    frame = (
        f'<rect class="dhps-nothing" x="1" y="1" width="{width - 2}" '
        f'height="{height - 2}" rx="8"/>'
    )
    return _svg(width, height, words, [frame, f"<text {middle}>{escape(words)}</text>"])


def _limits(scores: Sequence[float]) -> tuple[float, float]:
    """Return the range of scores to display, with some room."""
    low, high = score_limits(np.array(scores, dtype=np.float64))
    room = (high - low) or 1.0
    return low - 0.04 * room, high + 0.08 * room


def _grid(frame: _Frame) -> str:
    parts = []
    for value, label in _linear_ticks(frame.y_low, frame.y_high):
        y = frame.y(value)
        parts.append(
            f'<line class="dhps-grid" x1="{frame.left}" x2="{frame.width - frame.right}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{frame.left - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    return "".join(parts)


def _x_axis(frame: _Frame, n: int) -> str:
    ticks = [
        (value, f"{round(value):,}")
        for value, _ in _linear_ticks(1, max(n, 2))
        if value == round(value) and 1 <= value <= n
    ]
    labels = [_x_label(frame, value, label) for value, label in ticks]
    line = (
        f'<line class="dhps-axis" x1="{frame.left}" x2="{frame.width - frame.right}" '
        f'y1="{frame.floor}" y2="{frame.floor}"/>'
    )
    end = frame.width - frame.right
    unit = (
        f'<text x="{end}" y="{frame.height - 1}" text-anchor="end" '
        'class="dhps-unit">candidates</text>'
    )
    return line + "".join(labels) + unit


def _x_label(frame: _Frame, value: float, label: str) -> str:
    short = label if len(label) <= 12 else f"{label[:11]}…"  # noqa: PLR2004
    return (
        f'<text x="{frame.x(value):.1f}" y="{frame.floor + 15:.1f}" '
        f'text-anchor="middle">{escape(short)}</text>'
    )


def _best_line(frame: _Frame, curve: Curve) -> str:
    if not curve.best:
        return ""
    steps = []
    for place, (x, score) in enumerate(zip(curve.best_x, curve.best, strict=True)):
        if place:
            steps.append(f"H{frame.x(x):.1f}")
        steps.append(f"{'V' if place else f'M{frame.x(x):.1f},'}{frame.y(score):.1f}")
    best_x = next(
        x
        for x, score in zip(curve.best_x, curve.best, strict=True)
        if score == curve.best[-1]
    )
    at, y = frame.x(best_x), frame.y(curve.best[-1])
    anchor = "start" if at < frame.width / 2 else "end"
    shift = 9 if anchor == "start" else -9
    return (
        f'<path class="dhps-best-line" d="{"".join(steps)}"/>{_ring(at, y)}'
        f'<text class="dhps-best-label" x="{at + shift:.1f}" y="{max(y - 9, 12):.1f}" '
        f'text-anchor="{anchor}">{text.score_text(curve.best[-1])}</text>'
    )


def _ring(x: float, y: float) -> str:
    return f'<circle class="dhps-best-dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


def _cross(x: float, y: float) -> str:
    r = _FAILED_SIZE
    return (
        f'<path class="dhps-failed" d="M{x - r:.1f},{y - r:.1f}l{2 * r},{2 * r}'
        f'm0,{-2 * r}l{-2 * r},{2 * r}"><title>failed</title></path>'
    )


def _below(x: float, y: float) -> str:
    return (
        f'<path class="dhps-below" d="M{x - 3:.1f},{y - 3:.1f}h6l-3,5z">'
        "<title>far below the others</title></path>"
    )


def _linear_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return a few round values in a range, with their texts."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [(low, f"{low:.4g}")]
    raw = span / _N_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(one * power for one in _STEPS if one * power >= raw * 0.999)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if math.isclose(step / 10.0 ** math.floor(math.log10(step)), 2.5):
        digits += 1
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    large = max(abs(low), abs(high)) >= 1e5  # noqa: PLR2004 (longer labels do not fit)
    return [
        (at * step, f"{at * step:.3g}" if large else f"{at * step:,.{digits}f}")
        for at in range(first, last + 1)
    ]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return powers of ten in a range of logarithms, with their texts."""
    powers = range(math.ceil(low), math.floor(high) + 1)
    every = max(1, math.ceil(len(powers) / (_N_TICKS + 1)))
    return [(float(one), f"{10.0**one:g}") for one in powers[::every]]
