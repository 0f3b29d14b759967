"""The spec argument of commands: a file, and options that replace its fields."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from dask_hpsearch.config.gke import GKESpec

_FIELDS = {
    "project": "ID of a Google Cloud project",
    "store": "folder in a bucket, as gs://BUCKET/searches",
    "location": "zone or region",
    "gke_name": "name of the GKE cluster",
}


def add_spec(parser: ArgumentParser) -> None:
    """Add the argument SPEC, and the options that replace its fields."""
    parser.add_argument("spec", type=Path, metavar="SPEC", help="spec of a GKE cluster")
    group = parser.add_argument_group("replace fields of the spec")
    for field, text in _FIELDS.items():
        group.add_argument(f"--{_option(field)}", help=text)


def spec_of(arguments: Namespace) -> GKESpec:
    """Read the spec of a command.

    Raises
    ------
    SpecError
        If it cannot be read, or a field is invalid.
    """
    from dask_hpsearch.config.load import load_gke_spec

    return load_gke_spec(
        arguments.spec,
        **{
            field.removeprefix("gke_"): value
            for field, value in _changes(arguments).items()
        },
    )


def as_options(arguments: Namespace) -> str:
    """Format the spec and its changes as arguments of a command."""
    changed = [
        f"--{_option(field)}={value}" for field, value in _changes(arguments).items()
    ]
    return shlex.join([str(arguments.spec), *changed])


def as_python(arguments: Namespace) -> str:
    """Format the spec and its changes as arguments of `dask_hpsearch.gke_cluster`."""
    changed = [f"{field}={value!r}" for field, value in _changes(arguments).items()]
    return ", ".join([repr(str(arguments.spec)), *changed])


def _changes(arguments: Namespace) -> dict[str, str]:
    given = {field: getattr(arguments, field, None) for field in _FIELDS}
    return {field: value for field, value in given.items() if value is not None}


def _option(field: str) -> str:
    return field.replace("_", "-")
