"""The command that serves the dashboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.cli.arguments import EXIT_ERROR

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_dashboard(commands: Any) -> None:
    """Add the command to a parser's."""
    parser: ArgumentParser = commands.add_parser(
        "dashboard", help="show runs in a browser on this machine"
    )
    parser.description = (
        "Show the runs of a store, or one run, in a browser on this machine. The server "
        "listens on loopback only; the address that it prints has a token."
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="STORE|RUN",
        help="folder or URL of runs, or of one run (default: your own store here)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=0,
        metavar="PORT",
        help="port to listen on (default: a free one)",
    )
    parser.set_defaults(run_command=_dashboard)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 2**16:
        raise ValueError
    return port


def _dashboard(arguments: Namespace) -> int:
    import asyncio

    from dask_hpsearch.dashboard.server import DashboardServer, known_runs

    known = known_runs(_target(arguments.target))

    async def serve() -> None:
        async with DashboardServer(known, port=arguments.port) as server:
            print(f"Dashboard: {server.url}", flush=True)
            print("Ctrl-C ends it; the searches go on.", flush=True)
            await asyncio.Event().wait()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        return 0
    except OSError as error:  # the port is in use
        print(f"dask-hpsearch: cannot serve: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0


def _target(name: str | None) -> str | None:
    """Return a URL or folder; a run of the default store may be given by its name."""
    if name is None or "/" in name or Path(name).exists():
        return name
    from dask_hpsearch.runs.stores import default_store

    return f"{default_store().url}/runs/{name}"
