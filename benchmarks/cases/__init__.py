"""The benchmark cases, one per module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cases import cpu, forest, large, short, splits, steps

if TYPE_CHECKING:
    from benchmarks.case import Case

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        short.CASE,
        forest.CASE,
        large.CASE,
        *cpu.CASES,
        *steps.CASES,
        *splits.CASES,
    )
}
