"""The spec of a GKE cluster, as commands take it: a file, and fields that replace its own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from dask_hpsearch.config.gke import GKESpec

_FIELDS = {
    "project": "the id of a Google Cloud project",
    "store": "a folder in a bucket, as gs://BUCKET/searches",
    "location": "a zone or a region",
    "gke_name": "the GKE cluster's name",
}


def add_spec(parser: ArgumentParser) -> None:
    """Add the argument SPEC, and the options that take the place of its fields."""
    parser.add_argument("spec", type=Path, metavar="SPEC", help="a GKE cluster's spec")
    group = parser.add_argument_group("in place of the spec's")
    for field, says in _FIELDS.items():
        group.add_argument(f"--{_option(field)}", help=says)


def spec_of(arguments: Namespace) -> GKESpec:
    """Read the spec that a command is about.

    Raises
    ------
    SpecError
        If it cannot be read, or any field is wrong.
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
    """Write the spec and its changes as another command takes them."""
    changed = [
        f"--{_option(field)}={value}" for field, value in _changes(arguments).items()
    ]
    return shlex.join([str(arguments.spec), *changed])


def as_python(arguments: Namespace) -> str:
    """Write the spec and its changes as `dask_hpsearch.gke_cluster` takes them."""
    changed = [f"{field}={value!r}" for field, value in _changes(arguments).items()]
    return ", ".join([repr(str(arguments.spec)), *changed])


def _changes(arguments: Namespace) -> dict[str, str]:
    given = {field: getattr(arguments, field, None) for field in _FIELDS}
    return {field: value for field, value in given.items() if value is not None}


def _option(field: str) -> str:
    return field.replace("_", "-")
