"""The commands ``doctor`` and ``cost``: check a spec's project, estimate its cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.cli.arguments import EXIT_ERROR, add_addresses
from dask_hpsearch.cli.specs import add_spec, spec_of

if TYPE_CHECKING:
    from argparse import Namespace


def add_doctor(commands: Any) -> None:
    """Add the commands to a parser's."""
    doctor = commands.add_parser(
        "doctor", help="check that a project has what a GKE cluster needs"
    )
    doctor.description = (
        "Check that a Google Cloud project has what a spec's GKE cluster needs. Nothing is "
        "changed; each problem is printed with the command that fixes it."
    )
    add_addresses(doctor)
    cost = commands.add_parser("cost", help="estimate what a GKE cluster costs")
    cost.description = "Estimate what a spec's GKE cluster costs, from list prices."
    cost.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="price table (default: that of the package)",
    )
    for parser, function in ((doctor, _doctor), (cost, _cost)):
        add_spec(parser)
        parser.set_defaults(run_command=function)


def _doctor(arguments: Namespace) -> int:
    from dask_hpsearch.gcp.doctor.doctor import examine

    spec = spec_of(arguments)
    report = examine(spec, addresses=dict(arguments.address))
    if report.ok:
        print(f"project {spec.project} has everything that {arguments.spec} needs")
    if not report.ok or report.waiting or report.advice:
        print(report)
    return 0 if report.ok else EXIT_ERROR


def _cost(arguments: Namespace) -> int:
    from dask_hpsearch.gcp.pricing.costs import estimate
    from dask_hpsearch.gcp.pricing.prices import load_prices

    prices = None if arguments.prices is None else load_prices(arguments.prices)
    print(estimate(spec_of(arguments), prices=prices))
    return 0
