"""Run the benchmarks: ``python -m benchmarks [names] [--pairs 7] [--quick]``.

``python -m benchmarks bayes`` compares Bayesian searches; see `benchmarks.cases.bayes`.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import report
from benchmarks.cases import CASES, bayes
from benchmarks.rounds import run_case


def main() -> None:
    """Run the named cases; print and keep each one's table as it comes."""
    if sys.argv[1:2] == ["bayes"]:  # its contenders and its figures are other ones
        bayes.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--pairs", type=int, default=7, help="rounds (default: 7)")
    parser.add_argument(
        "--rare-pairs",
        type=int,
        default=3,
        help="rounds with the slow peers of long cases (default: 3)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, and no record of the result"
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(CASES)
    if unknown:
        parser.error(
            f"no case {', '.join(sorted(unknown))}: choose of {', '.join(CASES)}"
        )
    cases = [CASES[name] for name in options.names or CASES]
    where = report.surroundings()
    for case in cases:
        result = run_case(
            case,
            pairs=options.pairs,
            rare_pairs=options.rare_pairs,
            quick=options.quick,
        )
        print(report.markdown(result, where, quick=options.quick), end="\n\n")
        if not options.quick:
            report.keep(result, where)


if __name__ == "__main__":
    main()
