"""Fit a search on a Dask cluster that already runs."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from dask.distributed import Client
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, kube_cluster


def main(argv: list[str] | None = None) -> None:
    """Connect, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "address", nargs="?", help="address of a scheduler, such as tcp://host:8786"
    )
    where.add_argument("--kubernetes", metavar="NAME", help="name of a Dask cluster")
    parser.add_argument("--namespace", help="namespace of the Dask cluster")
    arguments = parser.parse_args(argv)
    with ExitStack() as stack:
        if arguments.kubernetes:
            # Attached by its name: the cluster stays when this script ends.
            cluster = stack.enter_context(
                kube_cluster(name=arguments.kubernetes, namespace=arguments.namespace)
            )
            client = stack.enter_context(cluster.get_client())
        else:
            client = stack.enter_context(Client(arguments.address))
        print(f"{len(client.scheduler_info()['workers'])} workers")
        X, y = load_digits(return_X_y=True)
        search = GridSearchCV(
            RandomForestClassifier(random_state=0),
            {"n_estimators": [20, 50], "max_features": [4, 8]},
            cv=3,
        )
        found = DaskSearchCV(search, client=client, progress=True).fit(X, y)
    print(f"best: {found.best_params_}, {found.best_score_:.4f}")


if __name__ == "__main__":
    main()
