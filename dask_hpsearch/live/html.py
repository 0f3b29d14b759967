"""The live state as HTML: one part for each section, all parts together as a snapshot.

The parts hold no inline styles and no scripts, so that a page may forbid both. All texts of
users are escaped here.
"""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from dask_hpsearch.live.charts import history_chart, slots_strip
from dask_hpsearch.live.state import varied_names
from dask_hpsearch.progress import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask_hpsearch.live.state import LiveState, TopCandidate

FILES = Path(__file__).parent / "static"
_MOST_COLUMNS = 6
_DAY_S = 86400
_NONE = "\N{EN DASH}"
_WORDS = {
    "max_time": "max_time was reached",
    "max_cost": "max_cost was reached",
    "stop_score": "stop_score was reached",
    "patience": "no improvement for a while",
    "interrupted": "it was interrupted",
}


@functools.cache
def stylesheet() -> str:
    """Return the text of ``live.css``."""
    return (FILES / "live.css").read_text(encoding="utf-8")


def snapshot(state: LiveState) -> str:
    """Return the state as HTML that needs nothing else, for saved notebooks."""
    return (
        f'<style>{stylesheet()}</style><div class="dhps">{"".join(parts(state).values())}'
        "</div>"
    )


def parts(state: LiveState) -> dict[str, str]:
    """Return the sections, in their order, by name."""
    return {
        "head": _section("head", _head(state)),
        "bar": _section("bar", _bar(state)),
        "notes": _section("notes", _notes(state)),
        "tiles": _section("tiles", _tiles(state)),
        "curve": _section("curve", f"<h4>Best so far</h4>{history_chart(state.curve)}"),
        "top": _section("top", _top(state)),
        "foot": _section("foot", _foot(state)),
    }


def _section(name: str, content: str) -> str:
    return f'<div class="dhps-{name}" data-part="{name}">{content}</div>'


def state_chip(state: str) -> str:
    """Return a run's state as a chip, whose form says the same as its colour."""
    shape = "dhps-pulse" if state in {"running", "starting"} else "dhps-dot"
    return (
        f'<span class="dhps-chip dhps-is-{escape(state)}"><i class="{shape}"></i>'
        f"{escape(state)}</span>"
    )


def clock_time(seconds: float, *, now: float) -> str:
    """Return a moment as a time of this machine; the page makes it one of the reader's."""
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    local = time.localtime(seconds)
    form = "%H:%M" if abs(seconds - now) < _DAY_S / 2 else "%b %d, %H:%M"
    return (
        f'<time datetime="{moment.isoformat(timespec="seconds")}">'
        f"{time.strftime(form, local)}</time>"
    )


def _head(state: LiveState) -> str:
    about = state.about
    title = escape(about.name or about.search)
    more = f"{escape(about.search)} · " if about.name else ""
    return (
        f'<div class="dhps-title"><strong>{title}</strong>{state_chip(state.state)}</div>'
        f'<div class="dhps-sub">{more}<span class="dhps-id">{escape(about.run_id)}</span>'
        "</div>"
    )


def _bar(state: LiveState) -> str:
    total = max(state.fits_total, state.fits_done, 1)
    share = state.fits_done / total
    label = f"{state.fits_done:,} of {state.fits_total:,} fits"
    kind = "dhps-done" if state.has_ended else "dhps-going"
    return (
        f'<progress class="{kind}" value="{state.fits_done}" max="{total}" '
        f'aria-label="{label}">{share:.0%}</progress>'
        f'<div class="dhps-scale"><span>{label}</span>{_when(state)}</div>'
    )


def _when(state: LiveState) -> str:
    elapsed = f"{text.duration(state.elapsed)} elapsed"
    if state.has_ended:
        return f"<span>{text.duration(state.elapsed)} in all</span>"
    if state.eta is None:
        return f"<span>{elapsed}</span>"
    left = text.duration(state.eta - state.at)
    at = clock_time(state.eta, now=state.at)
    return f"<span>{elapsed} · {left} left · <b>done at {at}</b></span>"


def _notes(state: LiveState) -> str:
    notes = []
    if state.problem:
        notes.append(f"Cluster: {state.problem}")
    if state.error:
        notes.append(state.error)
    if state.has_ended and state.reason not in {"", state.state}:
        notes.append(f"Stopped early: {_WORDS.get(state.reason, state.reason)}")
    return "".join(f"<p>{escape(text.printable(one))}</p>" for one in notes)


def _tiles(state: LiveState) -> str:
    best = _NONE if state.best_score is None else text.score_text(state.best_score)
    done = state.complete + state.failed
    tiles = [
        _tile("best", "Best score", best, _split_text(state.top)),
        _tile("candidates", "Candidates", f"{done:,}", f"of {state.n_candidates:,}"),
    ]
    if not state.has_ended:
        busy = f"{state.busy:,}" if state.slots else _NONE
        strip = slots_strip(state.slots, state.busy)
        workers = f"{state.workers:,} worker{'' if state.workers == 1 else 's'}"
        below = f"{strip}<span>{workers}</span>" if state.slots else "waiting"
        tiles.append(
            _tile("slots", "Slots busy", f"{busy} / {state.slots:,}", below, raw=True)
        )
    tiles.append(_tile("rate", "Pace", *_rate(state.rate)))
    if state.cost_usd is not None:
        tiles.append(_tile("cost", "Cost", _cost(state.cost_usd), "by list prices"))
    if state.fits_failed:
        fits = f"candidates, {state.fits_failed:,} fit{'' if state.fits_failed == 1 else 's'}"
        tiles.append(_tile("failed", "Failed", f"{state.failed:,}", fits))
    if state.dropped:
        tiles.append(_tile("dropped", "Dropped", f"{state.dropped:,}", "by the race"))
    return f"<dl>{''.join(tiles)}</dl>"


def _tile(kind: str, name: str, value: str, below: str, *, raw: bool = False) -> str:
    more = below if raw else escape(below)
    return (
        f'<div class="dhps-tile dhps-tile-{kind}"><dt>{name}</dt>'
        f"<dd><b>{escape(value)}</b><small>{more}</small></dd></div>"
    )


def _rate(rate: float) -> tuple[str, str]:
    return (f"{rate:,.1f}", "fits/s") if rate >= 1 else (f"{rate * 60:.1f}", "fits/min")


def _cost(usd: float) -> str:
    return text.cost(usd).removeprefix("about ").replace("less than ", "< ")


def _split_text(top: Sequence[TopCandidate]) -> str:
    return f"± {top[0].std:.2g} std" if top else "no complete candidate yet"


def _top(state: LiveState) -> str:
    if not state.top:
        return "<h4>Top candidates</h4><p>no complete candidate yet</p>"
    names = varied_names([one.params for one in state.top])
    columns = len(names) <= _MOST_COLUMNS
    heads = [
        f'<th scope="col" title="{escape(one)}">{_short(one)}</th>' for one in names
    ]
    head = "".join(heads) if columns else '<th scope="col">parameters</th>'
    rows = [_row(one, names, columns=columns) for one in state.top]
    fixed = [
        f"{escape(name)}={escape(value)}"
        for name, value in state.top[0].params
        if name not in names
    ]
    note = f"<p>all with {', '.join(fixed)}</p>" if fixed else ""
    return (
        '<h4>Top candidates</h4><div class="dhps-scroll"><table><thead><tr>'
        '<th scope="col">#</th><th scope="col">score</th><th scope="col">± std</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{note}"
    )


def _row(one: TopCandidate, names: Sequence[str], *, columns: bool) -> str:
    params = dict(one.params)
    given = [(name, params.get(name, _NONE)) for name in names]
    if columns:
        cells = "".join(f"<td>{escape(value)}</td>" for _, value in given)
    else:
        words = ", ".join(f"{_last(name)}={value}" for name, value in given)
        cells = f'<td class="dhps-words">{escape(words)}</td>'
    first = ' class="dhps-first"' if one.rank == 1 else ""
    return (
        f'<tr{first}><td>{one.rank}</td><td class="dhps-score">'
        f"{text.score_text(one.score)}</td><td>{one.std:.2g}</td>{cells}</tr>"
    )


def _last(name: str) -> str:
    """Return a parameter's name without the steps of a pipeline before it."""
    return name.rpartition("__")[2] or name


def _short(name: str) -> str:
    return escape(_last(name))


def _foot(state: LiveState) -> str:
    links = []
    if state.dashboard.startswith(("http://", "https://")):
        url = escape(state.dashboard)
        links.append(
            f'<a href="{url}" target="_blank" rel="noopener noreferrer">Dask dashboard</a>'
        )
    links.append(
        f'<code title="the run, for SearchRun.attach">{escape(state.about.url)}</code>'
    )
    links.append(f"<span>as of {clock_time(state.at, now=time.time())}</span>")
    return "".join(links)
