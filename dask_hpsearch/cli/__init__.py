"""The command ``dask-hpsearch``: parse, call, print."""

from __future__ import annotations

import os
import select
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dask_hpsearch import __version__
from dask_hpsearch.cli.arguments import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    positive,
)
from dask_hpsearch.cli.clusters import add_clusters
from dask_hpsearch.cli.completion import add_completion
from dask_hpsearch.cli.dashboard import add_dashboard
from dask_hpsearch.cli.doctor import add_doctor
from dask_hpsearch.cli.gke import add_gke
from dask_hpsearch.cli.help import add_help
from dask_hpsearch.cli.images import add_images
from dask_hpsearch.cli.init import add_init
from dask_hpsearch.cli.operator import add_operator
from dask_hpsearch.cli.promotion import add_promotion
from dask_hpsearch.cli.runs import add_runs
from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.extras import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process.

    Parameters
    ----------
    argv
        The command line without the program's name; default: that of the process.

    Returns
    -------
    int
        0; 1 after an error, with one line on standard error, and one that names the command
        for its help; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    return _exit_code(lambda: arguments.run_command(arguments))


def _exit_code(command: Callable[[], int]) -> int:
    try:
        code = command()
        sys.stdout.flush()
    except HPSearchError as error:
        return _print_error(error)
    except ImportError as error:
        missing = missing_extra(error, what="this command")
        if missing is None:
            raise
        return _print_error(missing)
    except KeyboardInterrupt:
        print("dask-hpsearch: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        if not _output_was_closed():
            raise
        return EXIT_ERROR
    return code


def _output_was_closed() -> bool:
    """Whether nothing reads the output any more, as after ``| head``; gives it up then."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    # Python flushes once more at its end, and would print the error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _print_error(error: HPSearchError) -> int:
    notes: list[str] = getattr(error, "__notes__", [])
    for line in (f"dask-hpsearch: {error}", *notes):
        print(" ".join(line.split()), file=sys.stderr)
    return EXIT_ERROR


class _Parser(ArgumentParser):
    """Takes options before and after arguments; a wrong command line leads to the help.

    So do the parsers of commands, which are of the same class.
    """

    _mixes = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._mixes or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._mixes = True  # the method below calls this one
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixes = False

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        hint = f"try '{self.prog} --help'"
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n{hint}\n")


def _parser() -> ArgumentParser:
    parser = _Parser(
        prog="dask-hpsearch",
        description="Fit scikit-learn hyperparameter searches on Dask workers.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}"
    )
    # Each command adds its own parser, and sets ``run_command`` to its function.
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands.add_parser("demo", help="search a random forest on real data"))
    add_runs(commands)
    add_promotion(commands)
    add_init(commands)
    add_dashboard(commands)
    add_images(commands)
    add_operator(commands)
    add_clusters(commands)
    add_doctor(commands)
    add_gke(commands)
    add_help(commands)
    add_completion(commands, parser)
    return parser


def _add_demo(parser: ArgumentParser) -> None:
    parser.description = (
        "Search a random forest's parameters on scikit-learn's handwritten digits, "
        "on a Dask cluster of this machine. Takes about a minute on two cores."
    )
    parser.add_argument(
        "--n-iter",
        type=positive,
        metavar="N",
        help="number of candidates (default: for about a minute)",
    )
    parser.add_argument(
        "--slots",
        type=positive,
        metavar="N",
        help="number of concurrent fits (default: one per core)",
    )
    parser.add_argument(
        "--output",
        type=_output,
        default="search.pkl",
        metavar="PATH",
        help="file for the fitted search (default: %(default)s)",
    )
    parser.set_defaults(run_command=_demo)


def _demo(arguments: Namespace) -> int:
    # Imported here: it imports scikit-learn and Dask, which --help does not need.
    from dask_hpsearch.cli import demo

    options = {} if arguments.n_iter is None else {"n_iter": arguments.n_iter}
    stopped = demo.run(arguments.output, slots=arguments.slots, **options)
    return EXIT_INTERRUPTED if stopped == "interrupted" else 0


def _output(text: str) -> Path:
    """Check the path before the search, whose result would be lost otherwise."""
    path = Path(text)
    if path.is_dir():
        msg = f"must be a file, got the folder {text!r}"
        raise ArgumentTypeError(msg)
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        msg = f"must be a writable path, got {text!r}"
        raise ArgumentTypeError(msg)
    return path
