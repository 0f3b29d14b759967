"""Prints the tables and keeps them: JSON, and Markdown in the README."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.case import N_SLOTS
from benchmarks.summary import Row, Spread, plain_fits_s, rows, scores_are_cpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rounds import CaseResult

HERE = Path(__file__).parent
_PACKAGES = (
    *("scikit-learn", "numpy", "scipy", "joblib"),
    *("dask", "distributed", "dask-ml"),
)
_BEGIN, _END = "<!-- latest: begin -->", "<!-- latest: end -->"
_HEAD = (
    *("contender", "rounds", "wall s", "÷ ours", "ours ÷ it", "efficiency"),
    *("CPU s", "PSS GiB", "sent B/fit", "TCP MB"),
)
_CPU_HEAD = ("CPU ms/fit", "ours ÷ it (CPU/fit)")


def surroundings() -> dict[str, Any]:
    """Describe the machine, the versions and what the environment sets."""
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "thread_settings": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("OMP_", "OPENBLAS_", "MKL_", "MALLOC_"))
        },
        "slots": N_SLOTS,
    }


def markdown(result: CaseResult, where: dict[str, Any], *, quick: bool = False) -> str:
    """Write a case's table in Markdown, with its surroundings."""
    versions = ", ".join(f"{name} {v}" for name, v in where["versions"].items())
    settings = ", ".join(f"{k}={v}" for k, v in where["thread_settings"].items())
    first = f"### {result.case.name}{' (quick: small sizes)' if quick else ''}"
    last = (
        f"{where['date']}: {where['cores']} cores ({where['cpu']}), "
        f"{where['memory_gib']} GiB, {where['system']}, Python {where['python']}; "
        f"{versions}; thread settings of the environment: {settings or 'none'}."
    )
    return "\n".join([first, "", *_case_lines(result), "", last])


def keep(result: CaseResult, where: dict[str, Any]) -> None:
    """Put a result in place of the case's last one, in the JSON and the README."""
    path = HERE / "results" / "latest.json"
    path.parent.mkdir(exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {}
    table = {"table": markdown(result, where)}
    kept[result.case.name] = table | where | _as_json(result)
    path.write_text(json.dumps(kept, indent=1) + "\n")
    _write_readme("\n\n".join(case["table"] for case in kept.values()))


def _write_readme(tables: str) -> None:
    path = HERE / "README.md"
    before, _, rest = path.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    path.write_text(f"{before}{_BEGIN}\n\n{tables}\n\n{_END}{after}")


def _case_lines(result: CaseResult) -> list[str]:
    by_cpu = scores_are_cpu(result)
    head = (*_HEAD, *_CPU_HEAD) if by_cpu else _HEAD
    table = [head, *(_cells(row, by_cpu=by_cpu) for row in rows(result))]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    lines = [_line(line, widths) for line in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    plain_s = plain_fits_s(result)
    title = f"{result.case.title}; {plain_s:.1f} s of fits in a plain process."
    return [title, "", *lines]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "| " + " | ".join(padded) + " |"


def _cells(row: Row, *, by_cpu: bool) -> tuple[str, ...]:
    cells = (
        row.contender,
        str(row.rounds),
        _spread(row.wall_s),
        _spread(row.to_ours),
        _spread(row.ours_to_it),
        _number(row.efficiency),
        f"{row.cpu_s:.1f}",
        f"{row.pss_gib:.2f}",
        f"{row.sent_per_fit:,.0f}",
        f"{row.tcp_mb:,.1f}",
    )
    if not by_cpu:
        return cells
    return (*cells, _spread(row.fit_cpu_s, unit=1e-3), _spread(row.ours_to_its_fit_cpu))


def _spread(spread: Spread | None, *, unit: float = 1.0) -> str:
    if spread is None:
        return ""
    middle, least, most = (
        f"{value / unit:.2f}" for value in (spread.median, spread.least, spread.most)
    )
    return f"{middle} ({least} to {most})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _as_json(result: CaseResult) -> dict[str, Any]:
    return {
        "title": result.case.title,
        "plain": asdict(result.plain),
        "rows": [asdict(row) for row in rows(result)],
        "measurements": {
            entry.label: [asdict(measured) for measured in timed]
            for entry, timed in result.timed.items()
        },
    }


def _cpu_model() -> str:
    with Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
