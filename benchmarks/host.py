"""The program of one contender's own process: fits a case's search when told to.

Started by `benchmarks.measure`, which sends round numbers and gets a `Fit` for each.
"""

from __future__ import annotations

import argparse
import time
import warnings
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import contenders
from benchmarks.case import Fit
from benchmarks.cases import CASES

if TYPE_CHECKING:
    from benchmarks.case import Case
    from benchmarks.contenders import Contender


def main() -> None:
    """Warm up, then fit for each round number until there is none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--case", required=True)
    parser.add_argument("--contender", required=True)
    parser.add_argument("--inner-n-jobs", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    case = CASES[options.case]
    connection = Connection(options.fd)
    warnings.simplefilter("ignore")
    with contenders.start(options.contender, case.n_slots) as contender:
        _fit(case, contender, quick=True, inner_n_jobs=options.inner_n_jobs)
        data = case.data(options.quick)
        connection.send("ready")
        while (number := connection.recv()) is not None:
            connection.send(
                _fit(
                    case,
                    contender,
                    quick=options.quick,
                    inner_n_jobs=options.inner_n_jobs,
                    data=data,
                    number=number,
                )
            )


def _fit(
    case: Case,
    contender: Contender,
    *,
    quick: bool,
    inner_n_jobs: int,
    data: tuple[Any, Any] | None = None,
    number: int = -1,
) -> Fit:
    """Fit once. X differs a little in each round, so that nobody has seen it before."""
    X, y = data or case.data(quick)
    X[0, 0] = number
    search = case.search(contender.module, quick, inner_n_jobs)
    sent = contender.sent_bytes()
    begun = time.perf_counter()
    fitted = contender.fit(search, X, y)
    wall_s = time.perf_counter() - begun
    return _told(fitted, wall_s=wall_s, sent_bytes=contender.sent_bytes() - sent)


def _told(fitted: Any, *, wall_s: float, sent_bytes: int) -> Fit:
    results, n_splits = fitted.cv_results_, fitted.n_splits_
    scores = np.array([results[f"split{i}_test_score"] for i in range(n_splits)])
    mean_s = results["mean_fit_time"] + results["mean_score_time"]
    return Fit(
        wall_s=wall_s,
        n_fits=scores.size,
        fits_s=float(mean_s.sum() * n_splits),
        median_score=float(np.median(scores)),
        sent_bytes=sent_bytes,
    )


if __name__ == "__main__":
    main()
