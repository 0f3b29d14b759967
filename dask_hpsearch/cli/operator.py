"""Commands about the Dask operator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dask_hpsearch.cli.arguments import EXIT_ERROR

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Awaitable, Callable

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi


def add_operator(commands: Any) -> None:
    """Add the commands to a parser's."""
    operator = commands.add_parser(
        "operator", help="install, show or remove the Dask operator"
    )
    operator.description = (
        "The Dask operator creates the pods of Dask clusters. Install it once in each "
        "Kubernetes cluster."
    )
    subcommands = operator.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    install = subcommands.add_parser("install", help="install it, or update it")
    install.add_argument(
        "--image", required=True, help="an image built with dask-hpsearch image build"
    )
    status = subcommands.add_parser(
        "status", help="show whether it is installed and ready"
    )
    remove = subcommands.add_parser(
        "remove", help="remove it, if there are no Dask clusters"
    )
    for parser, function in (
        (install, _install),
        (status, _status),
        (remove, _remove),
    ):
        parser.add_argument(
            "--context", help="context of the kubeconfig (default: the current one)"
        )
        parser.set_defaults(run_command=function)


def _install(arguments: Namespace) -> int:
    from dask_hpsearch.clusters.kubernetes import operator

    _with_api(arguments, lambda api: operator.install(api, arguments.image))
    print(f"the Dask operator runs on {arguments.image}")
    return 0


def _status(arguments: Namespace) -> int:
    from dask_hpsearch.clusters.kubernetes import operator

    found = _with_api(arguments, operator.status)
    print(f"custom resource definitions: {found.definitions} of 4")
    if found.image is None:
        print("operator: not installed by dask-hpsearch")
    else:
        state = "ready" if found.ready else "not ready"
        print(f"operator: {state}, dask-kubernetes {found.version}, {found.image}")
    return 0 if found.ready else EXIT_ERROR


def _remove(arguments: Namespace) -> int:
    from dask_hpsearch.clusters.kubernetes import operator

    _with_api(arguments, operator.remove)
    print("removed the Dask operator")
    return 0


def _with_api(
    arguments: Namespace, function: Callable[[KubernetesApi], Awaitable[Any]]
) -> Any:
    from dask_hpsearch.clusters.kubernetes.api import connected

    async def run() -> Any:
        async with connected(context=arguments.context) as api:
            return await function(api)

    return asyncio.run(run())
