"""Commands about GKE clusters."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.cli.arguments import EXIT_ERROR, add_addresses, positive
from dask_hpsearch.cli.specs import add_spec, as_options, as_python, spec_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.deploy.context import DeployContext
    from dask_hpsearch.deploy.inspect import GKEUsage
    from dask_hpsearch.gcp.gke.clusters import GKEClusters
    from dask_hpsearch.gcp.gke.state import GKECluster, GKEPool


def add_gke(commands: Any) -> None:
    """Add the commands to a parser's."""
    for name, function, text in (
        ("up", _up, "create a spec's GKE cluster, ready for Dask, and keep it"),
        (
            "status",
            _status,
            "show a spec's GKE cluster, its Dask clusters, and its cost",
        ),
        ("scale", _scale, "scale a Dask cluster on a spec's GKE cluster"),
        (
            "down",
            _down,
            "remove a spec's GKE cluster and images, and list what remains",
        ),
    ):
        parser = _command(commands, name, function, text)
        add_spec(parser)
        if function is _up:
            add_addresses(parser)
            parser.add_argument(
                "--bind",
                action="store_true",
                help="set missing IAM bindings of its pods, instead of printing commands",
            )
        if function is _scale:
            parser.add_argument("workers", type=_count, metavar="N")
            parser.add_argument(
                "--cluster", help="name of the Dask cluster, if there are several"
            )
    for name, function, text in (
        (
            "ls",
            _ls,
            "list the GKE clusters of a project that dask-hpsearch has created",
        ),
        ("sweep", _sweep, "delete the GKE clusters of a project that have expired"),
    ):
        parser = _command(commands, name, function, text)
        parser.add_argument(
            "--spec", type=Path, metavar="SPEC", help="a spec that names the project"
        )
        parser.add_argument("--project", help="project ID; overrides the spec's")
        parser.set_defaults(refuse=parser.error)
        if function is _sweep:
            parser.add_argument("--dry-run", action="store_true", help="list them only")
    _command(
        commands,
        "gke-token",
        _token,
        "print a token for kubectl (called by a kubeconfig)",
    )


def _command(commands: Any, name: str, function: Any, text: str) -> ArgumentParser:
    parser: ArgumentParser = commands.add_parser(name, help=text)
    parser.description = f"{text[0].upper()}{text[1:]}."
    parser.set_defaults(run_command=function)
    return parser


def _count(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _up(arguments: Namespace) -> int:
    from dask_hpsearch.deploy.provision import provision
    from dask_hpsearch.gcp.pricing.costs import later_end

    context = _context(arguments)
    _print_cost(context.spec)
    provisioned = provision(context, keep=True, bind=arguments.bind)
    print(f"{provisioned.cluster.name} is ready, and expires {_expiry(context)}")
    expires_at = provisioned.cluster.expires_at
    for line in later_end(context.spec, expires_at, now=context.clock.now()):
        print(line)
    print(f"use it with gke_cluster({as_python(arguments)}, keep_gke=True)")
    print(f"remove it with dask-hpsearch down {as_options(arguments)}")
    print(f"kubeconfig: {provisioned.kubeconfig}")
    return 0


def _status(arguments: Namespace) -> int:
    from dask_hpsearch.deploy.inspect import inspect
    from dask_hpsearch.exceptions import CloudNotFoundError
    from dask_hpsearch.gcp.gke.labels import is_managed

    context = _context(arguments)
    found = context.gke.find(context.spec.path)
    if found is None:
        msg = (
            f"there is no GKE cluster {context.spec.path}: create it with "
            "dask-hpsearch up"
        )
        raise CloudNotFoundError(msg)
    _print(found)
    for pool in found.pools:
        kind = "spot" if pool.spot else "on-demand"
        foreign = "" if pool.managed else ", not created by dask-hpsearch"
        print(
            f"  pool {pool.name}: {pool.machine_type} {kind}, {pool.min_nodes} to "
            f"{pool.max_nodes} nodes, {_state(pool)}{foreign}"
        )
    if not is_managed(found.labels) or not found.server:
        return 0
    usage = inspect(context)
    for one in usage.dask_clusters:
        print(f"  Dask cluster {one.name}: {one.ready} of {one.desired} workers")
    print(f"  {_cost_so_far(context.spec, found, usage)}")
    return 0


def _scale(arguments: Namespace) -> int:
    from dask_hpsearch.deploy.inspect import inspect
    from dask_hpsearch.deploy.scale import scale
    from dask_hpsearch.exceptions import ClusterError, ClusterNotFoundError

    context = _context(arguments)
    maximum = context.spec.dask.workers.max
    if arguments.workers > maximum:
        msg = (
            f"the number of workers must be at most {maximum} (dask.workers.max in the "
            f"spec), got {arguments.workers}: raise the maximum, or ask for fewer"
        )
        raise ClusterError(msg)
    dask_clusters = inspect(context).dask_clusters
    selected = [one for one in dask_clusters if arguments.cluster in (None, one.name)]
    if len(selected) != 1:
        names = ", ".join(one.name for one in dask_clusters)
        msg = (
            f"name one of the Dask clusters with --cluster: {names}"
            if names
            else f"there is no Dask cluster on the GKE cluster {context.spec.name}: start "
            "one with gke_cluster"
        )
        raise ClusterNotFoundError(msg)
    scale(context, selected[0], arguments.workers)
    print(f"scaled {selected[0].name} to {arguments.workers} workers")
    return 0


def _down(arguments: Namespace) -> int:
    from dask_hpsearch.deploy.deprovision import deprovision

    context = _context(arguments)
    result = deprovision(context)
    for name in result.removed:
        print(f"removed {name}")
    if not result.removed:
        print("there was nothing to remove")
    for name in result.remaining:
        print(f"kept    {name}")
    print(f"kept    {context.spec.store}: your runs and data")
    return 0


def _ls(arguments: Namespace) -> int:
    for one in _gke(arguments).list_managed():
        _print(one)
    return 0


def _sweep(arguments: Namespace) -> int:
    from dask_hpsearch.concurrency import Clock
    from dask_hpsearch.gcp.gke.reaper import sweep

    swept = sweep(_gke(arguments), Clock(), dry_run=arguments.dry_run)
    for one in swept:
        print(f"{one.cluster.path}: {one.error or 'removed'}")
    if not swept:
        print("no GKE cluster has expired")
    return (
        EXIT_ERROR if any(one.error for one in swept) and not arguments.dry_run else 0
    )


def _token(arguments: Namespace) -> int:
    from dask_hpsearch.gcp.auth import exec_credential

    del arguments
    print(exec_credential())
    return 0


def _context(arguments: Namespace) -> DeployContext:
    from dask_hpsearch.deploy.context import DeployContext
    from dask_hpsearch.gcp.clients import cloud_clients

    spec = spec_of(arguments)
    addresses = dict(getattr(arguments, "address", ()))
    clients = cloud_clients(spec.endpoints, project=spec.project, addresses=addresses)
    return DeployContext(spec, clients, _say)


def _gke(arguments: Namespace) -> GKEClusters:
    from dask_hpsearch.gcp.clients import cluster_manager
    from dask_hpsearch.gcp.gke.clusters import GKEClusters

    if arguments.spec is not None:
        return _context(arguments).gke
    if arguments.project is None:
        arguments.refuse("one of the arguments --project --spec is required")
    return GKEClusters(
        cluster_manager(project=arguments.project), arguments.project, say=_say
    )


def _print(found: GKECluster) -> None:
    print(
        f"{found.path}: {_state(found)}, {found.nodes} nodes, owner "
        f"{found.owner or 'unknown'}, expires {_time(found.expires_at)}"
    )


def _state(found: GKECluster | GKEPool) -> str:
    return f"{found.status} ({found.message})" if found.message else found.status


def _expiry(context: DeployContext) -> str:
    found = context.gke.find(context.spec.path)
    return _time(None if found is None else found.expires_at)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    time = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _print_cost(spec: GKESpec) -> None:
    from dask_hpsearch.exceptions import HPSearchError
    from dask_hpsearch.gcp.pricing.costs import estimate

    try:
        print(estimate(spec))
    except HPSearchError as error:
        print(f"no estimate of the cost: {error}")


def _cost_so_far(spec: GKESpec, found: GKECluster, usage: GKEUsage) -> str:
    from dask_hpsearch.exceptions import HPSearchError
    from dask_hpsearch.gcp.pricing.costs import cost_so_far

    now = time.time()
    created = now if found.created is None else found.created
    age = f"age {(now - created) / 3600:.1f} hours"
    try:
        usd = cost_so_far(spec, created=created, nodes=usage.nodes, now=now)
    except HPSearchError as error:
        return f"{age}; no estimate of the cost: {error}"
    return f"{age}, cost so far at least ${usd:.2f}"


def _say(line: str) -> None:
    print(line, flush=True)
