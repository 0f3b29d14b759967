"""How data come from a bucket: ``python -m benchmarks.cases.data [--rounds 7]``.

Against an emulator on this machine: how fast an ``.npy`` of 400 MB is ready to be mapped,
side by side with a plain download by google-cloud-storage; then how often 400 MB in memory
are written and read by two searches.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Client
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.data import remote_files
from dask_hpsearch.localfs.bundles import Bundle
from dask_hpsearch.localfs.node_cache import NodeCache
from tests.gcs.emulator import emulator
from tests.gcs.held import new_bucket, put
from tests.gcs.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20


def large(quick: bool) -> tuple[Any, Any]:  # noqa: FBT001 (as the cases' data)
    """Return 1,000,000 rows of 50 float64 (400 MB); 20,000 if quick."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000 if quick else 1_000_000, 50))
    return X, (X[:, 0] > 0).astype(int)


def throughput(rounds: int, X: Any) -> None:
    """Print how fast an array is there, in turns."""
    from google.cloud import storage

    file = io.BytesIO()
    np.save(file, X)
    content = file.getvalue()
    with emulator() as port, tempfile.TemporaryDirectory() as folder:
        os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
        name = new_bucket(port)
        put(port, name, "X.npy", content)
        blob = storage.Client(project="none").bucket(name).blob("X.npy")
        one = remote_files.pin(f"gs://{name}/X.npy")
        cache = NodeCache(Path(folder) / "cache")

        def plain() -> None:
            blob.download_to_filename(Path(folder) / "plain.npy")
            np.load(Path(folder) / "plain.npy", mmap_mode="r")

        def ours() -> None:
            with cache.hold(
                one.key, one.nbytes, lambda path: remote_files.download(one, path)
            ) as held:
                np.load(held.path, mmap_mode="r")

        ways: dict[str, Callable[[], None]] = {"plain": plain, "ours": ours}
        found: dict[str, list[float]] = {"plain": [], "ours": []}
        for number in range(rounds + 1):
            for way in sorted(ways, reverse=bool(number % 2)):
                began = time.perf_counter()
                ways[way]()
                seconds = time.perf_counter() - began
                if number:  # the first one warms up
                    found[way].append(seconds)
                for rest in (Path(folder) / "plain.npy", cache.folder / one.key):
                    rest.unlink(missing_ok=True)
    for way, times in found.items():
        rate = len(content) / MIB / statistics.median(times)
        print(f"{way:6} {statistics.median(times):6.2f} s   {rate:7.0f} MiB/s")
    ratios = [p / o for p, o in zip(found["plain"], found["ours"], strict=True)]
    print(
        f"throughput, ours to plain: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def journeys(X: Any, y: Any) -> None:
    """Print how often X is written and read by two searches on workers that change."""
    digest = Bundle(X).digest
    search = GridSearchCV(
        GaussianNB(), {"var_smoothing": np.logspace(-9, 0, 8)}, cv=3, refit=False
    )
    with ExitStack() as stack:
        port = stack.enter_context(emulator())
        watched = stack.enter_context(proxy(port))
        os.environ["STORAGE_EMULATOR_HOST"] = watched.url  # the workers' too
        cluster = stack.enter_context(local_cluster(2, 1, dashboard_address=None))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        store = f"gs://{new_bucket(port)}/searches"
        for number in (1, 2):
            since, began = len(watched.seen), time.perf_counter()
            DaskSearchCV(search, client=client, store=store).fit(X, y)
            seconds = time.perf_counter() - began
            kinds = Counter(
                kind for kind, name in watched.seen[since:] if digest in name
            )
            print(
                f"search {number}: {seconds:.1f} s; X ({X.nbytes / MIB:.0f} MiB): begun to "
                f"write {kinds['begin'] + kinds['upload']} times, read "
                f"{kinds['download']} times by two workers of one node"
            )


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    X, y = large(options.quick)
    throughput(options.rounds, X)
    journeys(X, y)


if __name__ == "__main__":
    main()
