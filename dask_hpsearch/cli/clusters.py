"""The command that lists the Dask clusters of a namespace, or deletes one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dask_hpsearch.cli.arguments import EXIT_ERROR

if TYPE_CHECKING:
    from argparse import Namespace

    from dask_hpsearch.clusters.kubernetes.overview import ClusterRow

_NAMES = ("NAME", "AGE", "WORKERS", "OWNER", "STATE", "RUNS")


def add_clusters(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "clusters", help="list the Dask clusters on Kubernetes, or delete one"
    )
    parser.description = (
        "List all Dask clusters of a namespace, of every owner: age, ready and desired "
        "workers, owner, how long it has been idle, and runs."
    )
    parser.add_argument(
        "--end", metavar="NAME", help="delete this Dask cluster, with its runs"
    )
    parser.add_argument(
        "--context", help="context of the kubeconfig (default: the current one)"
    )
    parser.add_argument("--namespace", help="default: that of the context")
    parser.set_defaults(run_command=_clusters)


def _clusters(arguments: Namespace) -> int:
    from dask_hpsearch.clusters.kubernetes import overview

    where = {"context": arguments.context, "namespace": arguments.namespace}
    if arguments.end is not None:
        asyncio.run(overview.delete(arguments.end, where))
        print(f"deleted the Dask cluster {arguments.end}")
        return 0
    namespace, rows = asyncio.run(overview.rows(where))
    if not rows:
        print(f"no Dask clusters in namespace {namespace}")
        return 0
    print(table(rows))
    return EXIT_ERROR if any(row.problem for row in rows) else 0


def table(rows: list[ClusterRow]) -> str:
    """Format rows as a table, problems last."""
    cells = [
        (
            row.name,
            row.age,
            f"{row.ready}/{row.desired}",
            row.owner,
            row.state,
            row.runs,
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(_NAMES, *cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in (_NAMES, *cells)
    ]
    lines += [f"{row.name}: {row.problem}" for row in rows if row.problem]
    return "\n".join(lines)
