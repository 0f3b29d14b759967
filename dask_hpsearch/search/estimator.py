"""`DaskSearchCV`: any hyperparameter search, fitted on Dask workers.

What fits a search is imported as the first one is fitted: the class itself costs no more than
scikit-learn.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, Self

from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.metaestimators import available_if

from dask_hpsearch.exceptions import StoreError, UnsupportedSearchError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from distributed import Client
    from distributed.deploy.cluster import Cluster
    from optuna.samplers import BaseSampler

    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.exports.candidate_result import CandidateResult
    from dask_hpsearch.exports.mlflow_settings import MlflowTracker
    from dask_hpsearch.runs import SearchRun

Backend = Literal["auto", "trials", "joblib", "dask-ml"]
_OF_TRIALS = (
    "max_time",
    "fit_timeout",
    "max_cost",
    "racing",
    "stop_score",
    "patience",
    "sampler",
    "on_candidate",
    "tracker",
)  # parameters that only this backend has


def _search_has(name: str) -> Callable[[Any], bool]:
    """Check that the search, fitted or not, has a method."""

    def check(self: Any) -> bool:
        getattr(vars(self).get("search_", self.search), name)
        return True

    return check


class DaskSearchCV(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Fits a hyperparameter search on Dask workers, and then behaves as that search.

    scikit-learn's own search code decides what is fitted and builds the results: they
    equal a plain local fit with the same ``random_state``, times apart.

    Parameters
    ----------
    search : object
        GridSearchCV, RandomizedSearchCV, HalvingGridSearchCV, HalvingRandomSearchCV,
        skopt's BayesSearchCV, any other subclass of scikit-learn's ``BaseSearchCV``;
        Optuna's OptunaSearchCV; dask-ml's IncrementalSearchCV, InverseDecaySearchCV,
        SuccessiveHalvingSearchCV and HyperbandSearchCV, whose models are trained block by
        block; dask-ml's GridSearchCV and RandomizedSearchCV; anything else whose ``fit``
        parallelises with joblib. It is left as it is: `search_` is a fitted copy.
        Its ``n_jobs`` is used only if there is no cluster, see ``client``.
    client : distributed.Client, str or Dask cluster, optional
        A client, the address of a scheduler, or a cluster. Default: the current Dask
        client or, if there is none, a local cluster with one worker, and as many slots as
        the search's ``n_jobs``, or as cores. A process keeps it for its next fit, for ten
        minutes at most.
    store : str or Path, optional
        A folder (or ``file://`` URL) that holds runs and their data. Workers that see
        it read the data there, others get it through Dask; a later search on the same
        data writes nothing. ``memory://NAME`` is gone with this process. Default: a
        folder of the user's own on this machine.
    task_name : str, optional
        A name for the run.
    backend : {"auto", "trials", "joblib", "dask-ml"}
        "trials": dask_hpsearch's own engine, for scikit-learn's and skopt's searches, and
        for dask-ml's that train models block by block. "dask-ml": dask-ml's way, for its
        GridSearchCV and RandomizedSearchCV, and for scikit-learn's of these names.
        "joblib": Dask's joblib backend. "auto" picks the first that can run it, in the
        order "trials", "dask-ml" (its own classes only), "joblib".
    max_time : float, optional
        Seconds after which the search ends with the results of the finished candidates,
        and a refit of the best. Backend "trials" only.
    fit_timeout : float, optional
        Seconds after which a single fit is ended and counts as failed. Backend "trials"
        only.
    max_cost : float, optional
        US dollars, by list prices, after which the search ends as with ``max_time``, and
        the cluster is scaled to zero workers. The cost is that of the cluster since the
        search began; the cluster must have a tariff, as those of `gke_cluster` have.
        Backend "trials" only.
    worker_timeout : float
        Seconds to wait for a first worker.
    progress : bool
        Show live progress in a terminal or a notebook; anywhere else (``nohup``, CI, a
        pipe) write a line to standard error every half minute, and one at the end.
    bayes_async : bool, optional
        For skopt's BayesSearchCV, with backend "trials" only. True: a free slot gets its
        next candidate at once, chosen from all finished results, instead of waiting for
        the other slots. ``n_points`` then bounds how many
        candidates are evaluated at once; its default, 1, means as many as there are
        slots. False: skopt's own loop, whose candidates are those of a plain fit with
        the same ``random_state``. Default: True if there is more than one slot when the
        search begins.
    share_steps : bool
        Fit the steps that candidates of a `sklearn.pipeline.Pipeline` have in common once
        for each split on each node, instead of once in each fit, unless a step draws
        random numbers without a seed, holds a generator, warns, or alters its input.
        Scores are the same; ``mean_fit_time`` is shorter. False: every fit fits all
        steps; needed for steps whose result depends on a clock, a file or the network,
        and for those that are to print or write something in every fit, since that
        cannot be detected. Backend "trials" only; a pipeline with a ``memory`` keeps it.
    racing : bool
        True: candidates that are beaten on their first splits are dropped, and the search
        takes 0.2 to 0.7 of the time. Candidates run one split at a time while others can use
        the slots. One is dropped if the mean that its finished splits let expect is
        below that of the best complete candidate by 4.5 standard errors; how hard each
        split is, and how much scores vary beyond that, is estimated from the
        complete candidates. ``cv_results_`` and the best candidate are
        those of the complete candidates, whose results are the same as without racing;
        the others are in `dropped_`. Which candidates are dropped depends on the order in
        which fits end, and the best one of all may, rarely, be among them. For
        GridSearchCV, RandomizedSearchCV and BayesSearchCV, with backend "trials" only;
        several scores need the name of one as the search's ``refit``.
    stop_score : float, optional
        The search ends, as with ``max_time``, once a complete candidate has this mean
        score or a higher one. Backend "trials" only; not for halving searches.
    patience : int, optional
        The search ends, as with ``max_time``, once so many complete candidates in a row,
        in the order in which they ended, were no better than the best before them.
        Backend "trials" only; not for halving searches.
    sampler : str or optuna.samplers.BaseSampler, optional
        For skopt's BayesSearchCV, with backend "trials" only: who chooses its candidates.
        "skopt" (default): its own models. "tpe" or "gp": Optuna's TPESampler or GPSampler
        (which needs PyTorch), seeded by the search's ``random_state``. A sampler of Optuna:
        a copy of it, with its own seed, for each search space. With Optuna, candidates are
        always asked as slots become free, as with ``bayes_async=True``; prior
        probabilities of categories do not count; and ``optimizer_results_`` has points
        and values, but no models.
    on_candidate : callable, optional
        Called with a `CandidateResult` (parameters, scores of the splits, state, times) for
        each candidate that has ended: completed, failed or dropped by a race or a pruner.
        One that a race has dropped comes at the end, since fits that ran may complete it.
        The calls come from one thread of the search's driver, in order of completion,
        and the search does not wait for them before its end. If it raises an error, the
        search goes on, and warns once at its end. With `submit`, and where the
        driver of a `fit` is a Job, it is pickled by cloudpickle and called in the driver. A
        candidate of a halving search is reported in each rung; the models of dask-ml's
        searches once, when they are trained no more. A resumed run of `submit` does not
        repeat what was reported, except for the last second before its driver was killed; a
        resumed run of `fit` does not call it. Backend "trials" only.
    tracker : "mlflow" or MlflowTracker, optional
        Tracks the search by MLflow while it runs: a run for the search, with a child run for
        each candidate, and at the end the refitted model. A tracker that fails never fails
        the search: it is tried again, and in the end there is a `TrackerWarning`;
        `SearchRun.to_mlflow` then adds what is missing. Resumed runs go on without
        doubles. Backend "trials" only.
    keep_cluster : bool
        False: the cluster ends with the search, even if the search fails; with a
        submitted search on Kubernetes, once no other run uses the cluster.

    Attributes
    ----------
    search_ : object
        The fitted search, of the class of ``search``; it needs neither dask nor
        dask_hpsearch. All its fitted attributes (``best_params_``, ``cv_results_``, …)
        can be read here too.
    backend_ : str
        The backend that was used.
    stopped_ : str or None
        None if the search ran to its end, "max_time", "max_cost", "stop_score",
        "patience" or "interrupted" (Ctrl-C) if its results cover only the candidates that
        had finished.
    dropped_ : dict of str to list or ndarray
        With ``racing=True`` only, also as an attribute of `search_`: the dropped
        candidates, in the form of ``cv_results_``: ``params``; ``n_splits``, the number
        of their finished splits; ``split0_test_score``, …, which are NaN for the
        others; ``mean_test_score`` over the finished ones.
    run_url_ : str or None
        The run's folder: `SearchRun.attach` finds it from any process.

    Examples
    --------
    >>> from dask_hpsearch import DaskSearchCV
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]})
    >>> found = DaskSearchCV(search).fit(X, y)
    >>> found.best_params_
    {'C': 1.0}
    >>> type(found.search_).__name__
    'GridSearchCV'
    """

    def __init__(
        self,
        search: Any,
        *,
        client: Client | Cluster | str | None = None,
        store: str | os.PathLike[str] | None = None,
        task_name: str | None = None,
        backend: Backend = "auto",
        max_time: float | None = None,
        fit_timeout: float | None = None,
        max_cost: float | None = None,
        worker_timeout: float = 60.0,
        progress: bool = False,
        bayes_async: bool | None = None,
        share_steps: bool = True,
        keep_cluster: bool = True,
        racing: bool = False,
        stop_score: float | None = None,
        patience: int | None = None,
        sampler: Literal["skopt", "tpe", "gp"] | BaseSampler | None = None,
        on_candidate: Callable[[CandidateResult], Any] | None = None,
        tracker: Literal["mlflow"] | MlflowTracker | None = None,
    ) -> None:
        self.search = search
        self.client = client
        self.store = store
        self.task_name = task_name
        self.backend = backend
        self.max_time = max_time
        self.fit_timeout = fit_timeout
        self.max_cost = max_cost
        self.worker_timeout = worker_timeout
        self.progress = progress
        self.bayes_async = bayes_async
        self.share_steps = share_steps
        self.keep_cluster = keep_cluster
        self.racing = racing
        self.stop_score = stop_score
        self.patience = patience
        self.sampler = sampler
        self.on_candidate = on_candidate
        self.tracker = tracker

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the search.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or str, or DataReference
            The data; or their URL or path: of an ``.npy``, ``.npz``, ``.parquet``,
            ``.csv``, ``.csv.gz`` or (signed) ``.joblib`` file, at ``gs://``, ``file://``
            or in a folder here, or of a folder or pattern of ``.parquet`` or ``.csv``
            files; or what `upload` returned. Workers read ``gs://`` by themselves. A Dask
            collection (array, dataframe, bag, delayed object) is computed once, on the
            client's workers, and is then like data in memory; searches that train models
            block by block use its blocks, of other data they make one block.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), or str, optional
            In the same ways; or the name of a column of the table that is X.
        **params
            What the search's own ``fit`` takes: ``groups``, ``sample_weight`` (these two
            as y), …; Dask collections among them are computed too.

        Returns
        -------
        self

        Raises
        ------
        UnsupportedSearchError
            If ``search`` is not a search, or the backend cannot run it.
        TypeError
            If ``client`` is not a client, an address or a cluster.
        ClientClosedError, NoWorkersError, WorkersLackPackageError
            If the client cannot be used.
        UnpicklableError, MissingModuleError
            If a part of the search cannot be sent to the workers.
        DataFormatError, ObjectNotFoundError, StorePermissionError, UntrustedObjectError
            If data by URL do not exist, cannot be read, or have the wrong format.
        DataChangedError
            If data by URL were changed since the run began.
        DataTooLargeError, DataUnavailableError
            If a Dask collection does not fit into the memory of a worker or of this
            process, or was persisted on a cluster that is gone.
        SearchStopped
            If ``max_time`` ended before a candidate had finished.
        """
        from dask_hpsearch.engine.connect import connected
        from dask_hpsearch.execution.cluster_end import end_cluster
        from dask_hpsearch.search import dispatch

        route = dispatch.choose(self.search, self.backend)
        with connected(self.client) as client:
            settings = self._settings(route, client)
            try:
                fitted = dispatch.fit(route, self.search, X, y, params, settings)
            except StoreError as error:
                if error.partial is not None:  # finished candidates are kept
                    self.search_ = error.partial
                    self.stopped_: str | None = "store"
                raise
            finally:
                if not self.keep_cluster:
                    end_cluster(client)
        self.search_ = fitted.search
        self.backend_ = route
        self.stopped_ = fitted.stopped
        self.run_url_ = fitted.url
        return self

    def submit(self, X: Any, y: Any = None, **params: Any) -> SearchRun:
        """Fit the search from another process, which outlives this one.

        It is a process of this machine or, on a cluster of `kube_cluster` with a store at
        ``gs://``, a Job on Kubernetes, which is started again if it is lost.

        Parameters
        ----------
        X, y, **params
            As for `fit`.

        Returns
        -------
        SearchRun
            At once. ``result()`` waits for the fitted search; the run's ``url`` finds it
            again from any other process.

        Raises
        ------
        UnsupportedSearchError
            If the backend of the search is not "trials".
        """
        from dask_hpsearch.engine.connect import connected
        from dask_hpsearch.runs.submit import submit
        from dask_hpsearch.search import dispatch

        route = dispatch.choose(self.search, self.backend)
        if route != "trials":
            msg = (
                f"only searches that run with backend='trials' can be submitted; this one "
                f"runs with {route!r}: use fit"
            )
            raise UnsupportedSearchError(msg)
        with connected(self.client) as client:
            return submit(self.search, X, y, params, self._settings(route, client))

    def _settings(self, route: str, client: Client | None) -> Settings:
        from dask_hpsearch.execution.client import slots_of_its_own
        from dask_hpsearch.execution.cost import tariff_of
        from dask_hpsearch.execution.early_ends import (
            check_early_ends,
            check_stop_rules,
        )
        from dask_hpsearch.execution.settings import (
            Settings,
            check_callback,
            check_limit,
        )
        from dask_hpsearch.exports.mlflow_settings import tracker_of
        from dask_hpsearch.stores import open_store
        from dask_hpsearch.strategies.optuna.samplers import check_sampler

        for name in ("max_time", "fit_timeout", "worker_timeout"):
            check_limit(name, getattr(self, name), "seconds")
        check_limit("max_cost", self.max_cost, "US dollars")
        check_callback(self.on_candidate)
        check_stop_rules(stop_score=self.stop_score, patience=self.patience)
        slots_of_its_own(self.search)  # an n_jobs of 0 is refused, wherever it runs
        if route != "trials":
            for name in _OF_TRIALS:
                value = getattr(self, name)
                if value is not None and value is not False:
                    msg = (
                        f"{name}={getattr(self, name)!r} needs backend='trials'; this "
                        f"search runs with {route!r}: leave {name} out"
                    )
                    raise ValueError(msg)
        tariff = tariff_of(client)
        if self.max_cost is not None and tariff is None:
            msg = (
                f"max_cost={self.max_cost!r} needs a cluster whose prices are known: "
                "make it with gke_cluster, or set its tariff (cluster.tariff = "
                "dask_hpsearch.Tariff(fixed_usd_hour=..., worker_usd_hour=...)), and "
                "connect with cluster.get_client()"
            )
            raise ValueError(msg)
        settings = Settings(
            client=client,
            store=None if self.store is None else open_store(self.store),
            task_name=self.task_name,
            max_time_s=self.max_time,
            fit_timeout_s=self.fit_timeout,
            worker_timeout_s=self.worker_timeout,
            progress=self.progress,
            bayes_async=self.bayes_async,
            share_steps=self.share_steps,
            max_cost_usd=self.max_cost,
            tariff=tariff,
            keep_cluster=self.keep_cluster,
            # The other ways run fits in the workers themselves, which go on with what they
            # have imported.
            keep_embedded=self.keep_cluster and route == "trials",
            racing=bool(self.racing),
            stop_score=None if self.stop_score is None else float(self.stop_score),
            patience=None if self.patience is None else int(self.patience),
            sampler=self.sampler,
            on_candidate=self.on_candidate,
            tracker=tracker_of(self.tracker),
        )
        if route == "trials":
            check_early_ends(self.search, settings)
            check_sampler(self.search, self.sampler, bayes_async=self.bayes_async)
        return settings

    @available_if(_search_has("predict"))
    def predict(self, X: Any, **params: Any) -> Any:
        """Predict with the best estimator."""
        return self._fitted("predict").predict(X, **params)

    @available_if(_search_has("predict_proba"))
    def predict_proba(self, X: Any, **params: Any) -> Any:
        """Predict probabilities with the best estimator."""
        return self._fitted("predict_proba").predict_proba(X, **params)

    @available_if(_search_has("predict_log_proba"))
    def predict_log_proba(self, X: Any, **params: Any) -> Any:
        """Predict logarithms of probabilities with the best estimator."""
        return self._fitted("predict_log_proba").predict_log_proba(X, **params)

    @available_if(_search_has("decision_function"))
    def decision_function(self, X: Any, **params: Any) -> Any:
        """Compute the best estimator's decision function."""
        return self._fitted("decision_function").decision_function(X, **params)

    @available_if(_search_has("transform"))
    def transform(self, X: Any, **params: Any) -> Any:
        """Transform with the best estimator."""
        return self._fitted("transform").transform(X, **params)

    @available_if(_search_has("inverse_transform"))
    def inverse_transform(self, X: Any, **params: Any) -> Any:
        """Transform back with the best estimator."""
        return self._fitted("inverse_transform").inverse_transform(X, **params)

    @available_if(_search_has("score_samples"))
    def score_samples(self, X: Any, **params: Any) -> Any:
        """Score samples with the best estimator."""
        return self._fitted("score_samples").score_samples(X, **params)

    @available_if(_search_has("score"))
    def score(self, X: Any, y: Any = None, **params: Any) -> float:
        """Score the best estimator as the search does."""
        score: float = self._fitted("score").score(X, y, **params)
        return score

    def get_metadata_routing(self) -> MetadataRouter:
        """Route metadata of ``fit`` to the search."""
        mapping = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=self)
        return router.add(search=self.search, method_mapping=mapping)

    def _fitted(self, method: str) -> Any:
        if "search_" not in vars(self):
            msg = f"this DaskSearchCV is not fitted yet: call fit before {method}"
            raise NotFittedError(msg)
        return self.search_

    def __getattr__(self, name: str) -> Any:
        if _is_fitted_name(name) and "search_" in vars(self):
            return getattr(self.search_, name)
        msg = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(msg)

    def __dir__(self) -> list[str]:
        fitted = vars(self).get("search_")
        names = [name for name in dir(fitted) if _is_fitted_name(name)]
        return sorted({*super().__dir__(), *(n for n in names if hasattr(fitted, n))})

    def __copy__(self) -> Self:
        copied: Any = object.__new__(type(self))
        copied.__dict__.update(vars(self))
        return copied  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied: Any = object.__new__(type(self))
        memo[id(self)] = copied
        memo[id(self.client)] = self.client  # a connection has no copy
        copied.__dict__.update(copy.deepcopy(vars(self), memo))
        return copied  # type: ignore[no-any-return]

    def __sklearn_is_fitted__(self) -> bool:
        return "search_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        return get_tags(self.search)

    def __sklearn_clone__(self) -> DaskSearchCV:
        # A client is a connection: a clone uses the same one, it cannot be copied.
        from sklearn.base import clone

        settings = self.get_params(deep=False)
        search = settings.pop("search")
        safe = hasattr(search, "get_params") and not isinstance(search, type)
        return type(self)(clone(search, safe=safe), **settings)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | {"client": None}  # a connection does not outlive its process


def _is_fitted_name(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_")
