"""Turns measurements into the figures of the tables: medians, ratios of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.case import N_SLOTS, OURS, PLAIN, Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Measurement
    from benchmarks.rounds import CaseResult


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its range."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise some values."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a case's table.

    Attributes
    ----------
    contender : str
    rounds : int
    wall_s : Spread or None
        None for plain processes, which do not share the work.
    to_ours : Spread or None
        Its wall time over ours in the same round.
    ours_to_it : Spread or None
        The inverse.
    efficiency : float or None
        Sum of the plain fits' times, over slots and wall time.
    cpu_s : float
        CPU time of all its processes per search, median.
    fit_cpu_s : Spread or None
        CPU time of one fit, in the cases that measure it: median over its fits, then
        over rounds.
    ours_to_its_fit_cpu : Spread or None
        CPU time of one fit of ours over its own, in the same round.
    pss_gib : float
        Most memory of all its processes together.
    sent_per_fit : float
        Bytes per fit that the client's process sent on its way to the fits.
    tcp_mb : float
        Bytes over TCP per search, in MB.
    """

    contender: str
    rounds: int
    wall_s: Spread | None
    to_ours: Spread | None
    ours_to_it: Spread | None
    efficiency: float | None
    cpu_s: float
    fit_cpu_s: Spread | None
    ours_to_its_fit_cpu: Spread | None
    pss_gib: float
    sent_per_fit: float
    tcp_mb: float


def rows(result: CaseResult) -> list[Row]:
    """Summarise a case, in the order of its first round."""
    ours = next(entry for entry in result.case.entries if entry.contender == OURS)
    return [_row(result, entry, ours) for entry in result.timed]


def scores_are_cpu(result: CaseResult) -> bool:
    """Tell whether a case scores its fits by CPU time."""
    return result.case.name.startswith("cpu")


def plain_fits_s(result: CaseResult) -> float:
    """Sum of all fits' own times in a plain process."""
    fits = result.plain.fits
    return sum(fit.fits_s for fit in fits) / len(fits)


def _row(result: CaseResult, entry: Entry, ours: Entry) -> Row:
    timed, memory = result.timed[entry], result.memory[entry]
    plain = entry.contender == PLAIN
    by_cpu = scores_are_cpu(result)
    walls = [measured.wall_s for measured in timed]
    ratios = [mine.wall_s / its.wall_s for mine, its in _pairs(result, ours, entry)]
    compared = ratios and not plain
    return Row(
        contender=entry.label,
        rounds=len(timed),
        wall_s=None if plain else Spread.of(walls),
        to_ours=Spread.of([1 / ratio for ratio in ratios]) if compared else None,
        ours_to_it=Spread.of(ratios) if compared else None,
        efficiency=None if plain else plain_fits_s(result) / N_SLOTS / median(walls),
        cpu_s=median(measured.cpu_s for measured in timed),
        fit_cpu_s=Spread.of([_fit_cpu_s(m) for m in timed]) if by_cpu else None,
        ours_to_its_fit_cpu=_fit_cpu_ratio(result, ours, entry) if by_cpu else None,
        pss_gib=(memory.pss_bytes or 0) / 2**30,
        sent_per_fit=median(_sent_per_fit(measured) for measured in timed),
        tcp_mb=median(measured.tcp_bytes / 1e6 for measured in timed),
    )


def _pairs(
    result: CaseResult, one: Entry, other: Entry
) -> list[tuple[Measurement, Measurement]]:
    """Pair the measurements of the rounds that both took part in."""
    if one == other:
        return []
    mine = {measured.number: measured for measured in result.timed[one]}
    return [(mine[m.number], m) for m in result.timed[other] if m.number in mine]


def _fit_cpu_ratio(result: CaseResult, ours: Entry, entry: Entry) -> Spread | None:
    pairs = _pairs(result, ours, entry)
    if not pairs:
        return None
    return Spread.of([_fit_cpu_s(mine) / _fit_cpu_s(its) for mine, its in pairs])


def _fit_cpu_s(measured: Measurement) -> float:
    return sum(fit.median_score for fit in measured.fits) / len(measured.fits)


def _sent_per_fit(measured: Measurement) -> float:
    return sum(f.sent_bytes for f in measured.fits) / sum(
        f.n_fits for f in measured.fits
    )
