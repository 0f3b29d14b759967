"""The command ``promote``: a run's model becomes the champion at a URL, if it is better."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dask_hpsearch.cli.arguments import EXIT_ERROR, positive

if TYPE_CHECKING:
    from argparse import Namespace


def add_promotion(commands: Any) -> None:
    """Add the command to a parser's."""
    says = "make a run's model the champion at a URL, if it is better"
    parser = commands.add_parser("promote", help=says)
    parser.description = (
        "Compare a run's model with the champion at a URL on held-out rows. It becomes the "
        "champion if the gain, and the lower bound of its bootstrap interval, are above "
        "--min-gain; or if there is no champion."
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="URL or folder of a run, or its name if it is in the default store",
    )
    parser.add_argument(
        "--holdout",
        nargs=2,
        required=True,
        metavar=("X", "Y"),
        help="files or URLs of held-out rows and of their targets; Y may be a column of X",
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="URL",
        help="gs://BUCKET/FOLDER, a folder, or models:/NAME for MLflow's registry",
    )
    parser.add_argument(
        "--scoring",
        metavar="NAME",
        help="a scorer of scikit-learn (default: that of the run's search)",
    )
    parser.add_argument(
        "--min-gain",
        type=float,
        default=0.0,
        metavar="GAIN",
        help="how much better it must be (default: %(default)s; -inf: replace any champion)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.95,
        metavar="P",
        help="confidence of the interval (default: %(default)s)",
    )
    parser.add_argument(
        "--n-resamples",
        type=positive,
        default=1000,
        metavar="N",
        help="resamples for the interval (default: %(default)s)",
    )
    parser.add_argument(
        "--signed-by",
        metavar="KEY",
        help="public key of the user who promoted the champion (default: your own)",
    )
    parser.set_defaults(run_command=_promote)


def _promote(arguments: Namespace) -> int:
    from dask_hpsearch import promote
    from dask_hpsearch.cli.runs import run_of

    X, y = arguments.holdout
    try:
        found = promote(
            run_of(arguments),
            X,
            y,
            to=arguments.to,
            scoring=arguments.scoring,
            min_gain=arguments.min_gain,
            confidence=arguments.confidence,
            n_resamples=arguments.n_resamples,
            signed_by=arguments.signed_by,
        )
    except ValueError as error:
        from dask_hpsearch.exceptions import HPSearchError

        if isinstance(error, HPSearchError):
            raise
        print(f"dask-hpsearch: {error}", file=sys.stderr)  # of an option
        return EXIT_ERROR
    what = "promoted" if found.promoted else "not promoted"
    print(f"{what}: {found.reason}")
    for name, score in found.scores.items():
        if score is not None:
            print(f"{found.metric} of the {name}: {score:.6g}")
    print(f"champion: version {found.version} at {found.url}")
    return 0
