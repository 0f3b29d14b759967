"""The commands ``doctor`` and ``cost``: what a spec needs of a project, and its price."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.cli.arguments import EXIT_ERROR
from dask_hpsearch.cli.specs import add_spec, spec_of

if TYPE_CHECKING:
    from argparse import Namespace


def add_doctor(commands: Any) -> None:
    """Add the commands to a parser's."""
    doctor = commands.add_parser(
        "doctor", help="look what a project lacks for a GKE cluster"
    )
    doctor.description = (
        "Look at a Google Cloud project, change nothing, and say what it lacks for a "
        "spec's GKE cluster, with the command that mends each."
    )
    doctor.add_argument(
        "--address",
        type=_address,
        action="append",
        default=[],
        metavar="SERVICE=URL",
        help="where a service is that is not at its usual address",
    )
    cost = commands.add_parser("cost", help="estimate what a GKE cluster costs")
    cost.description = "Estimate what a spec's GKE cluster costs, by list prices."
    cost.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="price table (default: the one that comes with the package)",
    )
    for parser, function in ((doctor, _doctor), (cost, _cost)):
        add_spec(parser)
        parser.set_defaults(run_command=function)


def _address(text: str) -> tuple[str, str]:
    service, equals, url = text.partition("=")
    if not equals or "://" not in url:
        msg = f"{text!r} is no SERVICE=URL, as compute=https://compute.example.com"
        raise ArgumentTypeError(msg)
    return service, url


def _doctor(arguments: Namespace) -> int:
    from dask_hpsearch.gcp.doctor.doctor import examine

    spec = spec_of(arguments)
    report = examine(spec, addresses=dict(arguments.address))
    print(
        f"project {spec.project} has all that {arguments.spec} needs"
        if report.ok
        else report
    )
    return 0 if report.ok else EXIT_ERROR


def _cost(arguments: Namespace) -> int:
    from dask_hpsearch.gcp.pricing.costs import estimate
    from dask_hpsearch.gcp.pricing.prices import load_prices

    prices = None if arguments.prices is None else load_prices(arguments.prices)
    print(estimate(spec_of(arguments), prices=prices))
    return 0
