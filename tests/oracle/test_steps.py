"""Fits that share steps leave what plain fits leave, bit for bit."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import NMF, PCA, FastICA, KernelPCA, TruncatedSVD
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import (
    SelectFromModel,
    SelectKBest,
    VarianceThreshold,
    f_classif,
    mutual_info_classif,
)
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import Isomap
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.random_projection import GaussianRandomProjection

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.localfs.node_cache import NodeCache
from dask_hpsearch.slots.node_files import NodeFolder
from dask_hpsearch.slots.node_steps import NodeSteps
from dask_hpsearch.slots.pipeline_cache import PipelineCache
from tests.oracle import steps
from tests.oracle.structure import difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from distributed import Client

    from tests.oracle.comparison import Oracle
    from tests.oracle.kinds import Data

SEED = 11
ROWS = "X", "y", "split"


def numbers() -> Data:
    """Return 90 rows of 6 positive columns, in three classes."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    return np.abs(rng.normal(size=(90, 6)) + y[:, None] * [2, 1, 0, 0, 1, 0]), y


def many_numbers() -> Data:
    """Return 300 rows."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 4)), np.arange(300) % 3


def frame() -> Data:
    """Return columns of numbers, with gaps, and of words."""
    X, y = numbers()
    table = pd.DataFrame(X[:, :3], columns=["a", "b", "c"])
    table.loc[::7, "a"] = np.nan
    table["word"] = [f"word {n % 5} {'even' if n % 2 else 'odd'}" for n in range(90)]
    table["kind"] = pd.Categorical([("u", "v", "w")[n % 3] for n in range(90)])
    return table, y


def texts() -> Data:
    """Return texts, as a list."""
    return list(frame()[0]["word"]), numbers()[1]


def columns() -> ColumnTransformer:
    """Return what people write for such a table."""
    filled = make_pipeline(SimpleImputer(), StandardScaler())
    return ColumnTransformer(
        [
            ("numbers", filled, make_column_selector(dtype_include="number")),
            ("kind", OneHotEncoder(handle_unknown="ignore"), ["kind"]),
            ("word", TfidfVectorizer(), "word"),
        ]
    )


SHARED = {
    "pca": (numbers, [PCA(3)]),
    "pca-full": (numbers, [PCA(3, svd_solver="full")]),
    "pca-eigh": (numbers, [PCA(3, svd_solver="covariance_eigh")]),
    "pca-randomized-seeded": (
        numbers,
        [PCA(3, svd_solver="randomized", random_state=1)],
    ),
    "pca-whitened-scaled": (numbers, [StandardScaler(), PCA(2, whiten=True)]),
    "kernel-pca": (numbers, [KernelPCA(4, kernel="rbf")]),
    "select": (numbers, [SelectKBest(f_classif, k=3)]),
    "select-variance": (numbers, [VarianceThreshold(0.1), MinMaxScaler()]),
    "select-model": (numbers, [SelectFromModel(LogisticRegression())]),
    "bins": (
        numbers,
        [KBinsDiscretizer(3, encode="onehot", quantile_method="averaged_inverted_cdf")],
    ),
    "columns": (frame, [columns()]),
    "columns-pandas": (
        frame,
        [
            ColumnTransformer(
                [
                    ("fill", SimpleImputer(), ["a", "b"]),
                    ("kind", OrdinalEncoder(), ["kind"]),
                ],
                remainder="drop",
            ).set_output(transform="pandas"),
            StandardScaler().set_output(transform="pandas"),
        ],
    ),
    "columns-select": (frame, [ColumnTransformer([("b", "passthrough", ["b", "c"])])]),
    "tfidf": (texts, [TfidfVectorizer(ngram_range=(1, 2))]),
    "tfidf-normalized": (texts, [CountVectorizer(), Normalizer()]),
    "function": (numbers, [FunctionTransformer(steps.squared)]),
    "function-of-texts": (texts, [FunctionTransformer(steps.lengths)]),
    "nystroem-seeded": (numbers, [Nystroem(n_components=10, random_state=0)]),
    "rbf-sampler-seeded": (numbers, [RBFSampler(n_components=10, random_state=0)]),
    "set-output": (numbers, [StandardScaler().set_output(transform="pandas"), PCA(2)]),
    "nested": (numbers, [make_pipeline(StandardScaler(), PCA(3)), MinMaxScaler()]),
    "union": (numbers, [FeatureUnion([("pca", PCA(2)), ("all", StandardScaler())])]),
    "polynomial": (
        numbers,
        [PolynomialFeatures(2, include_bias=False), SelectKBest(k=5)],
    ),
    "spline": (numbers, [SplineTransformer(n_knots=3)]),
    "isomap": (numbers, [Isomap(n_components=2, n_neighbors=60)]),
    "nmf-seeded": (numbers, [NMF(2, init="nndsvda", random_state=0, max_iter=2000)]),
    "target-encoder-in-order": (
        frame,
        [ColumnTransformer([("kind", TargetEncoder(cv=KFold(5)), ["kind"])])],
    ),
    "neighbours": (numbers, [KNNImputer()]),
    "own": (numbers, [steps.LoggedStep()]),
    "own-changes-itself": (numbers, [steps.ChangesItself()]),
    "own-keeps-its-input": (numbers, [steps.KeepsItsInput()]),
    "own-that-may-draw": (numbers, [steps.DrawsSometimes(factor=1.0)]),
}
EVERY_TIME = {
    "returns-its-input": (numbers, [steps.ReturnsItsInput()]),
    "returns-a-view": (numbers, [steps.ReturnsAView()]),
    "writes-to-its-input": (numbers, [steps.WritesToItsInput()]),
    "keeps-its-output": (numbers, [steps.KeepsItsOutput()]),
    "no-copy": (numbers, [StandardScaler(copy=False)]),
    "no-copy-nested": (numbers, [make_pipeline(PCA(2, copy=False))]),
    "function-in-place": (numbers, [FunctionTransformer(steps.doubled_in_place)]),
    "generator-as-seed": (
        numbers,
        [PCA(3, svd_solver="randomized", random_state=np.random.RandomState(5))],
    ),
    "generator-nested": (
        numbers,
        [
            make_pipeline(
                GaussianRandomProjection(
                    3,
                    random_state=np.random.RandomState(5),
                )
            )
        ],
    ),
    "own-with-a-generator": (
        numbers,
        [steps.HoldsAGenerator(rng=np.random.default_rng(3))],
    ),
}
DRAWS = {
    "truncated-svd": (numbers, [TruncatedSVD(2)]),
    "pca-randomized": (numbers, [PCA(2, svd_solver="randomized")]),
    "ica": (numbers, [FastICA(2, whiten="unit-variance", tol=0.1)]),
    "trees": (numbers, [RandomTreesEmbedding(n_estimators=3)]),
    "nystroem": (numbers, [Nystroem(n_components=10)]),
    "rbf-sampler": (numbers, [RBFSampler(n_components=10)]),
    "quantiles": (numbers, [QuantileTransformer(n_quantiles=5, subsample=20)]),
    "mutual-info": (numbers, [SelectKBest(mutual_info_classif, k=2)]),
    "isomap-of-many-rows": (many_numbers, [Isomap(n_components=2)]),
    "function": (numbers, [FunctionTransformer(steps.jittered)]),
    "nested": (numbers, [make_pipeline(StandardScaler(), RBFSampler())]),
    "columns": (numbers, [ColumnTransformer([("s", RBFSampler(), [0, 1])])]),
    "target-encoder": (
        frame,
        [ColumnTransformer([("kind", TargetEncoder(), ["kind"])])],
    ),
    "own-numpy": (numbers, [steps.DrawsFromNumpy()]),
    "own-python": (numbers, [steps.DrawsFromPython()]),
    "own-generator": (numbers, [steps.DrawsFromItsOwn()]),
    "own-that-may-draw": (numbers, [steps.DrawsSometimes(factor=3.0)]),
}


class Eager(NodeSteps):
    """Keeps every step for the whole node, however fast it is fitted."""

    def is_worth(self, seconds: float, nbytes: int) -> bool:
        """Say yes."""
        del seconds, nbytes
        return True


@contextlib.contextmanager
def caches_of_fits(*, on_node: bool) -> Iterator[list[PipelineCache]]:
    """Return the caches of three fits: of one slot, or of three slots of a node."""
    if not on_node:
        yield [PipelineCache()] * 3
        return
    with tempfile.TemporaryDirectory() as folder:
        cache = NodeCache(Path(folder, "cache"), temporary=True)
        place = NodeFolder(cache.folder, None, "search", "code")
        caches = [PipelineCache() for _ in range(3)]
        for one in caches:
            one.node = Eager(place, cache)
        yield caches
        cache.close()


@pytest.fixture(params=["slot", "node"])
def run_on(request: Any, one_thread_process: Executor) -> Callable[..., Any]:
    """Call a function in a process like a slot's, with the caches of three fits there."""

    def run(function: Callable[..., Any], name: str) -> Any:
        on_node = request.param == "node"
        call = one_thread_process.submit(_with_caches, function, name, on_node)
        return call.result()

    return run


def _with_caches(function: Callable[..., Any], name: str, on_node: bool) -> Any:  # noqa: FBT001
    with caches_of_fits(on_node=on_node) as caches:
        return function(name, caches)


def fitted(pipeline: Pipeline, data: Data, cache: PipelineCache | None) -> Pipeline:
    """Fit a clone on copies of the data, as a slot does, or plainly."""
    X, y = copy.deepcopy(data)
    own = clone(pipeline)
    if cache is not None:
        cache.attach(own, ROWS)
    np.random.seed(SEED)  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return own.fit(X, y)


def hits(caches: list[PipelineCache]) -> int:
    """Count the steps that needed no fit."""
    return sum(cache.hits for cache in {id(one): one for one in caches}.values())


def check(
    pipeline: Pipeline, data: Data, caches: list[PipelineCache]
) -> tuple[int, int]:
    """Compare each fit with a plain one; return how many steps were recalled, of all."""
    for cache in caches:
        plain, found = (fitted(pipeline, data, one) for one in (None, cache))
        assert difference(plain, found) is None
        for method in ("transform", "predict_proba"):
            at = slice(None, -1) if method == "transform" else slice(None)
            of_plain, of_found = plain[at], found[at]
            X, _ = copy.deepcopy(data)
            expected = getattr(of_plain, method)(X)
            X, _ = copy.deepcopy(data)
            assert difference(expected, getattr(of_found, method)(X)) is None
    return hits(caches), (len(caches) - 1) * (len(pipeline) - 1)


def with_classifier(early: list[Any]) -> Pipeline:
    """Add what comes last, a classifier that takes sparse matrices too."""
    return make_pipeline(*early, LogisticRegression(max_iter=1000))


def _shared(name: str, caches: list[PipelineCache]) -> tuple[int, int]:
    data, early = SHARED[name]
    return check(with_classifier(early), data(), caches)


@pytest.mark.parametrize("name", SHARED)
def test_shared_steps_leave_what_plain_fits_leave(
    name: str, run_on: Callable[..., Any]
) -> None:
    """Every step is fitted once, and all fits are equal in every bit."""
    found, possible = run_on(_shared, name)

    assert found == possible


def _fitted_every_time(name: str, caches: list[PipelineCache]) -> int:
    data, early = EVERY_TIME[name]
    pipeline = with_classifier(early)
    pipeline.set_params(logisticregression__max_iter=5000)

    for cache in caches:
        own, plain = copy.deepcopy(pipeline), copy.deepcopy(pipeline)
        X, y = data()
        cache.attach(own, ROWS)
        own.fit(X, y)
        assert difference(plain.fit(*data()), own) is None
    return hits(caches)


@pytest.mark.parametrize("name", EVERY_TIME)
def test_some_steps_are_fitted_every_time(
    name: str, run_on: Callable[..., Any]
) -> None:
    """Steps that share memory with others, and steps that hold generators."""
    assert run_on(_fitted_every_time, name) == 0


def _drawing(name: str, caches: list[PipelineCache]) -> int:
    data, early = DRAWS[name]
    pipeline = with_classifier([*early, StandardScaler(with_mean=False)])

    for cache in caches:
        own = clone(pipeline)
        cache.attach(own, ROWS)
        own.fit(*data())
    return hits(caches)


@pytest.mark.parametrize("name", DRAWS)
def test_steps_that_draw_are_fitted_every_time(
    name: str, run_on: Callable[..., Any]
) -> None:
    """And so are the steps after them."""
    assert run_on(_drawing, name) == 0


class TestInASearch:
    """The same through workers: one with two slots, unless another one is made."""

    def test_pipelines_of_all_kinds(self, oracle: Oracle) -> None:
        """Frames with text, categories and gaps go through nested steps."""
        pipeline = make_pipeline(
            columns(), TruncatedSVD(3, random_state=0), GaussianNB()
        )
        grid = {
            "gaussiannb__var_smoothing": [1e-9, 1e-3, 1e-1],
            "columntransformer__numbers__simpleimputer__strategy": ["mean", "median"],
        }

        oracle.check(lambda: GridSearchCV(pipeline, grid, cv=3), *frame())

    @pytest.mark.parametrize(
        ("step", "parameters"),
        [
            (steps.Bare(), {}),
            (steps.Converts(), {"converts__columns": [(0, 1), (1, 2)]}),
            (steps.NotesItsParameters(), {"notesitsparameters__factor": [1, 2]}),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_steps_that_have_no_equal_clone(
        self, step: Any, parameters: dict[str, Any], oracle: Oracle
    ) -> None:
        """A pipeline without a memory fits its own steps, not clones."""
        pipeline = make_pipeline(step, GaussianNB())
        grid = parameters | {"gaussiannb__var_smoothing": [1e-9, 1e-3, 1e-1]}

        oracle.check(lambda: GridSearchCV(pipeline, grid, cv=3), *numbers())

    def test_failures_are_counted_as_in_plain_fits(self, oracle: Oracle) -> None:
        """An error is the same, whether its step and those before it are shared or not."""
        pipeline = make_pipeline(StandardScaler(), steps.FailsSometimes(), GaussianNB())
        grid = [
            {"failssometimes__factor": [1.0, 3.0]},
            {
                "standardscaler__with_mean": [False],
                "failssometimes__factor": [3.0],
                "gaussiannb__var_smoothing": [1e-9, 1e-3, 1e-1],
            },
        ]

        oracle.check(lambda: GridSearchCV(pipeline, grid, cv=3), *numbers())

    @pytest.mark.parametrize(
        ("step", "per_group"),
        [
            (steps.LoggedStep(seconds=0.15), 1),
            (steps.ChangesItself(seconds=0.15), 1),
            (steps.DrawsFromNumpy(seconds=0.02), 8),
            (steps.DrawsFromPython(), 8),
            (steps.DrawsFromItsOwn(), 8),
            (steps.ReturnsItsInput(), 8),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_node_fits_a_step_once(
        self, client: Client, tmp_path: Path, step: Any, per_group: int
    ) -> None:
        """Unless it draws, however many slots and candidates need it."""
        log = str(tmp_path / "log")
        pipeline = make_pipeline(clone(step).set_params(log=log), GaussianNB())

        fit_search(pipeline, step_name(step), client)

        n_groups = 2 * 3
        assert fits_in(log) == n_groups * per_group

    @pytest.mark.parametrize("n_workers", [1, 2])
    def test_four_slots_fit_a_step_once(self, n_workers: int, tmp_path: Path) -> None:
        """While one makes it, the others of the node fit something else, or wait."""
        log = str(tmp_path / "log")
        step = steps.LoggedStep(log, seconds=0.3)
        with (
            local_cluster(n_workers, 4 // n_workers, dashboard_address=":0") as cluster,
            cluster.get_client() as own,
        ):
            own.wait_for_workers(n_workers)
            fit_search(make_pipeline(step, GaussianNB()), step_name(step), own)

        assert fits_in(log) == 2 * 3

    def test_what_draws_for_some_parameters_is_shared_for_the_others(
        self, client: Client, tmp_path: Path
    ) -> None:
        """Evidence counts for the very parameters, and the very rows."""
        log = str(tmp_path / "log")
        step = steps.DrawsSometimes(log, seconds=0.1)

        fit_search(make_pipeline(step, GaussianNB()), step_name(step), client)

        assert fits_in(log) == 3 * 1 + 3 * 8  # factors of 2 and 3

    def test_a_step_that_is_killed_is_made_by_another_slot(
        self, client: Client, tmp_path: Path
    ) -> None:
        """What a dead slot has claimed is free."""
        log = str(tmp_path / "log")
        step = KilledOnce(log, seconds=0.2)

        fit_search(make_pipeline(step, GaussianNB()), step_name(step), client)

        assert fits_in(log) == 2 * 3 + 1


class KilledOnce(steps.LoggedStep):
    """Kills its process in its first fit of all."""

    def drawn(self) -> float:
        """Die, once."""
        with contextlib.suppress(FileExistsError), Path(f"{self.log}.killed").open("x"):
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0


def step_name(step: Any) -> str:
    """Return the name that `make_pipeline` gives to a step."""
    return type(step).__name__.lower()


def fits_in(log: str) -> int:
    """Count the fits in a log."""
    return len(Path(log).read_text().splitlines())


def fit_search(pipeline: Pipeline, name: str, client: Client) -> None:
    """Fit 2 parameters of a step, 8 of the classifier, on 3 splits."""
    grid = {
        f"{name}__factor": [2.0, 3.0],
        "gaussiannb__var_smoothing": np.logspace(-9, -1, 8),
    }
    search = GridSearchCV(pipeline, grid, cv=KFold(3), refit=False)
    DaskSearchCV(search, client=client).fit(*numbers())
