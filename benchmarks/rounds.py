"""Runs a case's contenders in interleaved rounds."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field

from benchmarks.case import PLAIN, Case, Entry
from benchmarks.measure import Measurement, hosts, measure


@dataclass(slots=True)
class CaseResult:
    """All measurements of a case.

    Attributes
    ----------
    case : Case
    timed : dict of Entry to list of Measurement
        One per round that the entry took part in.
    memory : dict of Entry to Measurement
        Of the round in which memory was sampled.
    plain : Measurement
        As many plain processes side by side as there are slots, one BLAS thread each.
    """

    case: Case
    plain: Measurement
    timed: dict[Entry, list[Measurement]] = field(default_factory=dict)
    memory: dict[Entry, Measurement] = field(default_factory=dict)


def run_case(case: Case, *, pairs: int, rare_pairs: int, quick: bool) -> CaseResult:
    """Measure all contenders of a case, round by round, in an order that rotates."""
    _tell(f"{case.name}: {case.title}")
    plain = _measure_plain(case, quick=quick)
    chosen = tuple(entry for entry in case.entries if rare_pairs or not entry.rare)
    result = CaseResult(case, plain)
    with contextlib.ExitStack() as stack:
        groups = {
            entry: stack.enter_context(hosts(case, entry, quick=quick))
            for entry in chosen
        }
        for number in range(pairs):
            for entry in _rotated(chosen, number):
                if number < rare_pairs or not entry.rare:
                    measured = measure(groups[entry], number)
                    result.timed.setdefault(entry, []).append(measured)
                    _tell(f"  {entry.label:>30}: {measured.wall_s:8.2f} s")
        for entry in chosen:
            result.memory[entry] = measure(groups[entry], pairs, memory=True)
    return result


def _measure_plain(case: Case, *, quick: bool) -> Measurement:
    with hosts(case, Entry(PLAIN), quick=quick) as group:
        plain = measure(group, 0)
    _tell(f"  {PLAIN:>30}: {plain.wall_s:8.2f} s")
    return plain


def _rotated(entries: tuple[Entry, ...], number: int) -> list[Entry]:
    first = number % len(entries)
    return [*entries[first:], *entries[:first]]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
