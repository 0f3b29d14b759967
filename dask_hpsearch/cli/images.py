"""Commands for images."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import ImageBuildError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from dask_hpsearch.images.context import Context


def add_images(commands: Any) -> None:
    """Add the commands to a parser's."""
    image = commands.add_parser(
        "image", help="build the image of scheduler and workers"
    )
    image.description = "Build the image of scheduler, workers and operator."
    subcommands = image.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    build = subcommands.add_parser("build", help="build it, and print its name")
    build.description = "Build the image; print its name."
    where = build.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--local",
        action="store_true",
        help="build on this machine, with buildah, podman or docker",
    )
    where.add_argument(
        "--cloud",
        action="store_true",
        help="build with Cloud Build, push to Artifact Registry; needs the --spec of a GKE cluster",
    )
    build.add_argument(
        "--tag", metavar="NAME", help="default: derived from the content"
    )
    build.add_argument(
        "--builder", metavar="PROGRAM", help="default: the first one that is installed"
    )
    build.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="OPTION",
        help="passed to the builder, as --option=--network=host",
    )
    context = subcommands.add_parser(
        "context", help="write the folder from which it is built"
    )
    context.description = "Write the folder from which the image is built."
    context.add_argument("folder", type=Path, metavar="FOLDER")
    for parser, function in ((build, _build), (context, _context)):
        _add_content(parser)
        parser.set_defaults(run_command=function)


def _add_content(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--spec",
        type=Path,
        metavar="FILE",
        help="spec of a cluster, whose requirements and modules the image gets",
    )
    parser.add_argument(
        "--extras",
        metavar="NAMES",
        help="extras of dask-hpsearch, comma-separated (default: those installed here)",
    )


def _build(arguments: Namespace) -> int:
    if arguments.cloud:
        return _build_in_cloud(arguments)
    from dask_hpsearch.images.local import build, find_builder

    find_builder(arguments.builder)  # fail early if there is none
    with tempfile.TemporaryDirectory(prefix="dask-hpsearch-image-") as folder:
        name = build(
            _lay_out(Path(folder), arguments),
            tag=arguments.tag,
            builder=arguments.builder,
            options=arguments.option,
            say=_say,
        )
    print(name)
    return 0


def _build_in_cloud(arguments: Namespace) -> int:
    if arguments.spec is None:
        msg = "--cloud needs --spec FILE, the spec of a GKE cluster"
        raise ImageBuildError(msg)
    from dask_hpsearch.config.load import load_gke_spec
    from dask_hpsearch.gcp.images.images import ensure_image

    print(ensure_image(load_gke_spec(arguments.spec), say=_say))
    return 0


def _say(line: str) -> None:
    """Print the progress of a build, separate from its result."""
    print(line, file=sys.stderr, flush=True)


def _context(arguments: Namespace) -> int:
    print(_lay_out(arguments.folder, arguments).tag)
    return 0


def _lay_out(folder: Path, arguments: Namespace) -> Context:
    from dask_hpsearch.images.context import lay_out

    extras = None if arguments.extras is None else arguments.extras.split(",")
    if arguments.spec is None:
        return lay_out(folder, extras=extras)
    from dask_hpsearch.config.load import load_spec

    spec = load_spec(arguments.spec)
    modules = [arguments.spec.parent / module for module in spec.modules]
    return lay_out(
        folder, requirements=spec.requirements, modules=modules, extras=extras
    )
