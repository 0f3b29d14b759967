"""Runs a case's contenders in interleaved rounds."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.case import PLAIN, Case, Entry
from benchmarks.measure import Host, Measurement, hosts, measure

if TYPE_CHECKING:
    from collections.abc import Iterable


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
    idle_cpu : dict of Entry to list of float
        CPUs that an entry used while another one ran.
    plain : Measurement
        As many plain processes side by side as there are slots, one BLAS thread each.
    """

    case: Case
    plain: Measurement
    timed: dict[Entry, list[Measurement]] = field(default_factory=dict)
    memory: dict[Entry, Measurement] = field(default_factory=dict)
    idle_cpu: dict[Entry, list[float]] = field(default_factory=dict)


def run_case(case: Case, *, pairs: int, rare_pairs: int, quick: bool) -> CaseResult:
    """Measure all contenders of a case, round by round, in an order that rotates."""
    _tell(f"{case.name}: {case.title}")
    plain = _measure_plain(case, quick=quick)
    result = CaseResult(case, plain)
    with contextlib.ExitStack() as stack:
        groups = {
            entry: stack.enter_context(hosts(case, entry, quick=quick))
            for entry in case.entries
        }
        for number in range(pairs):
            entries = _rotated(case.entries, number)
            for entry in entries:
                if number < rare_pairs or not entry.rare:
                    _measure_one(result, groups, entry, number)
        for entry in case.entries:
            result.memory[entry] = measure(groups[entry], pairs, memory=True)
    return result


def _measure_plain(case: Case, *, quick: bool) -> Measurement:
    with hosts(case, Entry(PLAIN), quick=quick) as group:
        plain = measure(group, 0)
    _tell(f"  {PLAIN:>30}: {plain.wall_s:8.2f} s")
    return plain


def _measure_one(
    result: CaseResult, groups: dict[Entry, list[Host]], entry: Entry, number: int
) -> None:
    others = {other: group for other, group in groups.items() if other != entry}
    before = {other: _cpu_s(group) for other, group in others.items()}
    measured = measure(groups[entry], number)
    for other, group in others.items():
        idle = (_cpu_s(group) - before[other]) / measured.wall_s
        result.idle_cpu.setdefault(other, []).append(idle)
    result.timed.setdefault(entry, []).append(measured)
    _tell(f"  {entry.label:>30}: {measured.wall_s:8.2f} s")


def _rotated(entries: tuple[Entry, ...], number: int) -> list[Entry]:
    first = number % len(entries)
    return [*entries[first:], *entries[:first]]


def _cpu_s(group: Iterable[Host]) -> float:
    return sum(host.cpu_s() for host in group)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
