"""Commands about GKE clusters."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.cli.arguments import EXIT_ERROR, positive
from dask_hpsearch.cli.specs import add_spec, as_options, as_python, spec_of

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.deploy.inspect import Inside
    from dask_hpsearch.deploy.provision import Provisioner
    from dask_hpsearch.gcp.gke.clusters import GKEClusters
    from dask_hpsearch.gcp.gke.state import GKECluster, GKEPool


def add_gke(commands: Any) -> None:
    """Add the commands to a parser's."""
    for name, function, says in (
        ("up", _up, "create a spec's GKE cluster, ready for Dask, and leave it there"),
        (
            "status",
            _status,
            "show a spec's GKE cluster, its Dask clusters, and its cost",
        ),
        ("scale", _scale, "change how many workers a Dask cluster on it has"),
        (
            "down",
            _down,
            "remove a spec's GKE cluster and images, and list what is left",
        ),
    ):
        parser = _command(commands, name, function, says)
        add_spec(parser)
        if function is _scale:
            parser.add_argument("workers", type=_count, metavar="N")
            parser.add_argument(
                "--cluster", help="the Dask cluster's name, if there are several"
            )
    for name, function, says in (
        ("ls", _ls, "list the GKE clusters that dask-hpsearch has made in a project"),
        ("sweep", _sweep, "delete those whose time is over"),
    ):
        parser = _command(commands, name, function, says)
        parser.add_argument(
            "--spec", type=Path, metavar="SPEC", help="a spec that names the project"
        )
        parser.add_argument(
            "--project", help="its id; takes the place of the spec's, if there is one"
        )
        parser.set_defaults(refuse=parser.error)
        if function is _sweep:
            parser.add_argument("--dry-run", action="store_true", help="only show them")
    _command(
        commands, "gke-token", _token, "print a token for kubectl (of a kubeconfig)"
    )


def _command(commands: Any, name: str, function: Any, says: str) -> ArgumentParser:
    parser: ArgumentParser = commands.add_parser(name, help=says)
    parser.description = f"{says[0].upper()}{says[1:]}."
    parser.set_defaults(run_command=function)
    return parser


def _count(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _up(arguments: Namespace) -> int:
    provisioner = _provisioner(arguments)
    _say_cost(provisioner.spec)
    provisioned = provisioner.provision(keep=True)
    print(f"{provisioned.cluster.name} is ready, until {_when(provisioner)}")
    print(f"use it with gke_cluster({as_python(arguments)}, keep_gke=True)")
    print(f"remove it with dask-hpsearch down {as_options(arguments)}")
    print(f"kubeconfig: {provisioned.kubeconfig}")
    return 0


def _status(arguments: Namespace) -> int:
    from dask_hpsearch.exceptions import CloudNotFoundError
    from dask_hpsearch.gcp.gke.labels import is_ours

    provisioner = _provisioner(arguments)
    found = provisioner.gke.find(provisioner.spec.path)
    if found is None:
        msg = f"there is no GKE cluster {provisioner.spec.path}: dask-hpsearch up makes it"
        raise CloudNotFoundError(msg)
    _print(found)
    for pool in found.pools:
        kind = "spot" if pool.spot else "on-demand"
        whose = "" if pool.ours else ", not ours"
        print(
            f"  pool {pool.name}: {pool.machine_type} {kind}, {pool.min_nodes} to "
            f"{pool.max_nodes} nodes, {_state(pool)}{whose}"
        )
    if not is_ours(found.labels) or not found.server:
        return 0
    inside = provisioner.inside()
    for one in inside.dask:
        print(f"  Dask cluster {one.name}: {one.ready} of {one.wanted} workers")
    print(f"  {_cost_so_far(provisioner.spec, found, inside)}")
    return 0


def _scale(arguments: Namespace) -> int:
    from dask_hpsearch.exceptions import ClusterError, ClusterNotFoundError

    provisioner = _provisioner(arguments)
    most = provisioner.spec.dask.workers.max
    if arguments.workers > most:
        msg = (
            f"{arguments.workers} workers are more than the spec's dask.workers.max, "
            f"{most}: raise that, or ask for fewer"
        )
        raise ClusterError(msg)
    there = provisioner.inside().dask
    wanted = [one for one in there if arguments.cluster in (None, one.name)]
    if len(wanted) != 1:
        names = ", ".join(one.name for one in there)
        msg = (
            f"name one of the Dask clusters with --cluster: {names}"
            if there
            else f"there is no Dask cluster on {provisioner.spec.name}: gke_cluster starts one"
        )
        raise ClusterNotFoundError(msg)
    provisioner.scale(wanted[0], arguments.workers)
    print(f"{wanted[0].name} is to have {arguments.workers} workers")
    return 0


def _down(arguments: Namespace) -> int:
    provisioner = _provisioner(arguments)
    remains = provisioner.deprovision()
    for name in remains.gone:
        print(f"removed {name}")
    if not remains.gone:
        print("there was nothing to remove")
    for name in remains.left:
        print(f"left    {name}")
    print(f"left    {provisioner.spec.store}: your runs and data")
    return 0


def _ls(arguments: Namespace) -> int:
    for one in _gke(arguments).list_ours():
        _print(one)
    return 0


def _sweep(arguments: Namespace) -> int:
    from dask_hpsearch.gcp.gke.operations import Clock
    from dask_hpsearch.gcp.gke.reaper import sweep

    swept = sweep(_gke(arguments), Clock(), dry_run=arguments.dry_run)
    for one in swept:
        print(f"{one.cluster.path}: {one.error or 'removed'}")
    if not swept:
        print("no GKE cluster of ours is over its time")
    return (
        EXIT_ERROR if any(one.error for one in swept) and not arguments.dry_run else 0
    )


def _token(arguments: Namespace) -> int:
    from dask_hpsearch.gcp.auth import exec_credential

    del arguments
    print(exec_credential())
    return 0


def _provisioner(arguments: Namespace) -> Provisioner:
    from dask_hpsearch.deploy.provision import Provisioner
    from dask_hpsearch.gcp.clients import cloud_clients

    spec = spec_of(arguments)
    return Provisioner(spec, cloud_clients(spec.endpoints), _say)


def _gke(arguments: Namespace) -> GKEClusters:
    from dask_hpsearch.gcp.clients import cluster_manager
    from dask_hpsearch.gcp.gke.clusters import GKEClusters

    if arguments.spec is not None:
        return _provisioner(arguments).gke
    if arguments.project is None:
        arguments.refuse("one of the arguments --project --spec is required")
    return GKEClusters(cluster_manager(), arguments.project, say=_say)


def _print(found: GKECluster) -> None:
    print(
        f"{found.path}: {_state(found)}, {found.nodes} nodes, of {found.owner or 'unknown'}, "
        f"until {_time(found.expires_at)}"
    )


def _state(found: GKECluster | GKEPool) -> str:
    return f"{found.status} ({found.message})" if found.message else found.status


def _when(provisioner: Provisioner) -> str:
    found = provisioner.gke.find(provisioner.spec.path)
    return _time(None if found is None else found.expires_at)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "somebody removes it"
    there = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f"{there:%Y-%m-%d %H:%M} UTC"


def _say_cost(spec: GKESpec) -> None:
    from dask_hpsearch.exceptions import HPSearchError
    from dask_hpsearch.gcp.pricing.costs import estimate

    try:
        print(estimate(spec))
    except HPSearchError as error:
        print(f"no estimate of the cost: {error}")


def _cost_so_far(spec: GKESpec, found: GKECluster, inside: Inside) -> str:
    from dask_hpsearch.exceptions import HPSearchError
    from dask_hpsearch.gcp.pricing.costs import cost_so_far

    now = time.time()
    created = now if found.created is None else found.created
    hours = f"there for {(now - created) / 3600:.1f} hours"
    try:
        usd = cost_so_far(spec, created=created, nodes=inside.nodes, now=now)
    except HPSearchError as error:
        return f"{hours}; no estimate of the cost: {error}"
    return f"{hours}, has cost at least ${usd:.2f}"


def _say(line: str) -> None:
    print(line, flush=True)
