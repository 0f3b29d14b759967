"""Commands for runs, named as the methods of `SearchRun`."""

from __future__ import annotations

import math
import shlex
import sys
from argparse import ArgumentParser, Namespace
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.cli.arguments import EXIT_ERROR, EXIT_INTERRUPTED, positive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

    from dask_hpsearch import SearchRun


def add_runs(commands: Any) -> None:
    """Add the commands to a parser's."""
    store = ArgumentParser(add_help=False)
    store.add_argument(
        "store",
        nargs="?",
        metavar="STORE",
        help="folder or URL of runs (default: your own on this machine)",
    )
    run = ArgumentParser(add_help=False)
    run.add_argument(
        "run",
        metavar="RUN",
        help="URL or folder of a run, or its name if it is in the default store",
    )
    on = ArgumentParser(add_help=False)
    on.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler to resume on (default for resume: a local cluster)",
    )
    for name, function, parents, says in (
        ("runs", _runs, [store], "list the runs of a store"),
        (
            "show",
            _show,
            [run],
            "show the progress of a run, and its log if it has failed",
        ),
        (
            "attach",
            _attach,
            [run, on],
            "follow a run to its end; Ctrl-C does not stop it",
        ),
        ("resume", _resume, [run, on], "continue an interrupted run"),
        ("stop", _stop, [run], "end a run with the results so far"),
        ("cancel", _cancel, [run], "end a run without a result"),
        (
            "logs",
            _logs,
            [run],
            "print the logs of a run's drivers and of its cluster's pods",
        ),
        ("delete", _delete, [run], "delete a run that is not active"),
        ("gc", _gc, [store], "remove data that no run of a store uses"),
    ):
        parser = commands.add_parser(name, parents=parents, help=says)
        parser.description = f"{says[0].upper()}{says[1:]}."
        parser.set_defaults(run_command=function)
        if function is _resume:
            _add_limits(parser)
        if function is _gc:
            parser.add_argument(
                "--older-than",
                type=positive,
                metavar="DAYS",
                help="also remove runs that have ended and are older than this",
            )


def _add_limits(parser: ArgumentParser) -> None:
    for name, kind, unit, says in (
        (
            "--max-time",
            float,
            "SECONDS",
            "end the run after this time, with the results so far",
        ),
        ("--fit-timeout", float, "SECONDS", "end a single fit after this time"),
        ("--max-cost", float, "USD", "end the run at this cost"),
        ("--stop-score", float, "SCORE", "end the run when a candidate reaches this"),
        (
            "--patience",
            _patience,
            "NUMBER",
            "end the run after so many complete candidates without improvement",
        ),
    ):
        more = " (default: as before; inf: no limit)"
        parser.add_argument(name, type=kind, metavar=unit, help=says + more)


def _patience(text: str) -> float:
    return math.inf if text == "inf" else positive(text)


def _runs(arguments: Namespace) -> int:
    from dask_hpsearch import SearchRun
    from dask_hpsearch.progress import text
    from dask_hpsearch.runs.stores import default_store

    runs = SearchRun.list(arguments.store)
    if not runs:
        where = default_store().url if arguments.store is None else arguments.store
        print(f"no runs of yours in {where}", file=sys.stderr)
    for run in runs:
        snapshot = run.progress()
        parts = [run.run_id, f"{run.state:11}", text.fits(snapshot), run.task_name]
        print("  ".join(part for part in parts if part))
    return 0


def _show(arguments: Namespace) -> int:
    run = run_of(arguments)
    state = run.state
    _print_state(run)
    if state == "failed":
        _print_logs(run)
    return 0


def _attach(arguments: Namespace) -> int:
    from dask_hpsearch.runs.watch import watch

    with _client_of(arguments) as client:
        run = run_of(arguments, client)
        if not run.done():
            where = shlex.quote(run.url)
            hint = (
                f"dask-hpsearch stop {where} ends the run with the results so far, "
                f"dask-hpsearch cancel {where} without a result"
            )
            try:
                watch(run, None, hint=hint)
            except KeyboardInterrupt:  # what was shown last says that it goes on
                return EXIT_INTERRUPTED
        _print_state(run)
    return 0 if run.state.has_result else EXIT_ERROR


def _resume(arguments: Namespace) -> int:
    limits = {
        name: getattr(arguments, name)
        for name in ("max_time", "fit_timeout", "max_cost", "stop_score", "patience")
    }
    with _client_of(arguments) as client:
        try:
            run = run_of(arguments).resume(client, **limits)
        except ValueError as error:  # of a limit
            print(f"dask-hpsearch: {error}", file=sys.stderr)
            return EXIT_ERROR
    print(
        f"{run.run_id} is {run.state}: follow it with dask-hpsearch attach "
        f"{shlex.quote(run.url)}"
    )
    return 0


def _stop(arguments: Namespace) -> int:
    return _ask(arguments, "stop", "to stop with the results so far")


def _cancel(arguments: Namespace) -> int:
    return _ask(arguments, "cancel", "to end without a result")


def _ask(arguments: Namespace, method: str, what: str) -> int:
    run = run_of(arguments)
    state = run.state
    if state.has_result:
        print(f"{run.run_id} is not active, but {state}")
        return EXIT_ERROR
    getattr(run, method)()
    print(f"{run.run_id} was asked {what}")
    return 0


def _logs(arguments: Namespace) -> int:
    _print_logs(run_of(arguments))
    return 0


def _print_logs(run: SearchRun) -> None:
    logs = run.logs()
    if logs:
        print(logs)
        return
    print(
        f"{run.run_id} has no logs here: fit writes to the output of its own process, and "
        "only drivers of submit and resume keep a log, on their machine",
        file=sys.stderr,
    )


def _delete(arguments: Namespace) -> int:
    run = run_of(arguments)
    run.delete()
    print(f"deleted {run.run_id}")
    return 0


def _gc(arguments: Namespace) -> int:
    from dask_hpsearch.runs.gc import gc
    from dask_hpsearch.runs.stores import default_store
    from dask_hpsearch.stores import open_store

    store = default_store() if arguments.store is None else open_store(arguments.store)
    removed = gc(store, older_than_days=arguments.older_than)
    mib = removed.nbytes / 2**20
    print(
        f"removed {len(removed.runs)} runs and {removed.n_data} data files ({mib:.1f} MiB)"
    )
    return 0


def run_of(arguments: Namespace, client: Client | None = None) -> SearchRun:
    """Find the run that a command names."""
    from dask_hpsearch import SearchRun
    from dask_hpsearch.runs.stores import default_store

    name: str = arguments.run
    if "/" not in name and not Path(name).exists():
        name = f"{default_store().url}/runs/{name}"
    return SearchRun.attach(name, client)


@contextmanager
def _client_of(arguments: Namespace) -> Iterator[Client | None]:
    if arguments.scheduler is None:
        yield None
        return
    from dask_hpsearch.engine.connect import connected

    with connected(arguments.scheduler) as client:
        yield client


def _print_state(run: SearchRun) -> None:
    name = f" ({run.task_name})" if run.task_name else ""
    print(f"{run.run_id}{name}: {run.state}")
    _print_progress(run)
    print(run.url)
    if run.state.has_ended and run.state != "finished":
        print(f"dask-hpsearch resume {shlex.quote(run.url)} continues it")


def _print_progress(run: SearchRun) -> None:
    from dask_hpsearch.progress import text

    snapshot = run.progress()
    parts = [text.fits(snapshot), text.best(snapshot)]
    if snapshot.cost_usd is not None:
        parts.append(text.cost(snapshot.cost_usd))
    print(", ".join(parts), flush=True)
