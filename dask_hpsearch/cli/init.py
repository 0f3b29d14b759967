"""The command ``init``: write a commented cluster spec, to be changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace

# As in config/spec_files.py, which needs an extra.
_KINDS = ("local", "kubernetes", "gke")
_FIELDS = {
    "project": ("ID", "ID of a Google Cloud project (gke)"),
    "store": ("URL", "folder in a bucket, as gs://BUCKET/searches (gke)"),
    "location": ("NAME", "zone or region (gke)"),
    "name": ("NAME", "name of the GKE cluster (gke)"),
    "image": ("NAME", "container image, by its digest or tag (local, kubernetes)"),
    "namespace": ("NAME", "namespace of Kubernetes (local, kubernetes)"),
}


def add_init(commands: Any) -> None:
    """Add the command to a parser's."""
    says = "write a commented cluster spec to a new file"
    parser = commands.add_parser("init", help=says)
    parser.description = (
        "Write a commented cluster spec to a new file: for a Kubernetes cluster on this "
        "machine (local), for an existing one (kubernetes), or for a GKE cluster that is "
        "created from it (gke)."
    )
    parser.add_argument("kind", choices=_KINDS, metavar="KIND", help=", ".join(_KINDS))
    parser.add_argument(
        "path",
        type=Path,
        nargs="?",
        default=Path("cluster.yaml"),
        metavar="PATH",
        help="new file (default: %(default)s)",
    )
    for field, (unit, text) in _FIELDS.items():
        parser.add_argument(f"--{field}", metavar=unit, help=text)
    parser.set_defaults(run_command=_init)


def _init(arguments: Namespace) -> int:
    from dask_hpsearch.config.spec_files import write_spec

    given = {name: getattr(arguments, name) for name in _FIELDS}
    fields = {name: value for name, value in given.items() if value is not None}
    write_spec(arguments.kind, arguments.path, fields)
    print(f"wrote {arguments.path}: read its comments, and change what does not fit")
    for line in _next_steps(arguments.kind, arguments.path):
        print(line)
    return 0


def _next_steps(kind: str, path: Path) -> list[str]:
    if kind == "gke":
        return [f"check it:  dask-hpsearch doctor {path}"]
    return [f'use it:  from dask_hpsearch import kube_cluster; kube_cluster("{path}")']
