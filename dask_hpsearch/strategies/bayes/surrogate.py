"""Suggests the next points of a Bayesian search at a bounded cost, with skopt's parts.

`skopt.Optimizer.tell` fits all hyperparameters of its model, and maximises its acquisition
from 10,000 new points, for every single point: that takes seconds, while slots become free
every few milliseconds. Here hyperparameters are learnt at growing intervals; in between
the model is only conditioned on the known values, which is one factorisation. Pending
points count as evaluated, with the value that the model expects there ("kriging believer";
on Hartmann-6 with 8 slots it does better than skopt's constant liars). The acquisition is
maximised by sampling: a few thousand points, then ever closer around the best. Of several
points, each is chosen with the earlier ones counted as evaluated (`gp_posterior`); of very
many, each of the rest is the best of its own share of the samples.

It needs skopt: import this module only for a search of skopt. Of skopt's internals it uses
attributes of ``Optimizer`` and ``GaussianProcessRegressor``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor as PlainRegressor
from skopt.acquisition import _gaussian_acquisition
from skopt.learning import GaussianProcessRegressor

from dask_hpsearch.strategies.bayes.gp_kernels import with_noise, with_prior
from dask_hpsearch.strategies.bayes.gp_posterior import Posterior

Point = list[Any]

_MOST_TRAINING = 256
_MOST_LEARNING = 100
_SAMPLES = 2000
_PER_SHARE = 20
_RELEARN_GROWTH = 1.05
_RESTART_GROWTH = 1.3
_MOST_ONE_BY_ONE = 32
_MOST_REFINED = 8
_MOST_REFITTED = 4
_CENTRES = 5
_PER_CENTRE = 60
_WIDTHS = (0.1, 0.03, 0.01)
_SOME = 0.4


@dataclass(frozen=True, slots=True)
class Known:
    """The known values of one space.

    Attributes
    ----------
    points : list of list
        Points that were evaluated.
    values : list of float
        Their values, lower is better; NaN for failed ones.
    pending : list of list
        Points that were asked but not evaluated yet.
    """

    points: list[Point] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    pending: list[Point] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The points to evaluate next.

    Attributes
    ----------
    points : list of list
        The best ones, in order.
    reserve : list of list
        Cheaper ones, for slots that become free before the next model.
    model : object or None
        A model that was learnt meanwhile, from evaluated points only.
    """

    points: list[Point]
    reserve: list[Point]
    model: Any = None


def without_failures(values: list[float]) -> list[float]:
    """Replace NaN by the worst value, or by 0 if there is none."""
    finite = [value for value in values if np.isfinite(value)]
    worst = max(finite, default=0.0)
    return [value if np.isfinite(value) else worst for value in values]


class Surrogate:
    """Suggests points of one space.

    Parameters
    ----------
    optimizer : skopt.Optimizer
        Read for its space and settings; never told, never advanced.
    seed : int
    """

    def __init__(self, optimizer: Any, *, seed: int) -> None:
        self._space = optimizer.space
        self._estimator = optimizer.base_estimator_
        self._functions: list[str] = list(optimizer.cand_acq_funcs_)
        self._options = optimizer.acq_func_kwargs
        self._eta = optimizer.eta
        self._no_duplicates = optimizer.avoid_duplicates
        self._most_samples = optimizer.n_points
        self._rng = np.random.RandomState(seed)
        self._gains = np.zeros(len(self._functions))
        self._proposed: list[Any] | None = None
        self._learnt: Any = None
        self._learnt_from = 0
        self._restarted_from = 0

    def suggest(self, known: Known, n_points: int, n_reserve: int) -> Suggestions:
        """Suggest points to evaluate.

        Parameters
        ----------
        known : Known
            At least one evaluated point.
        n_points, n_reserve : int
            How many to suggest.
        """
        learnt = self._learn_if_due(known)
        chosen = _selection(known.values, _MOST_TRAINING, self._rng)
        values = without_failures([known.values[i] for i in chosen])
        data = _Data([known.points[i] for i in chosen], values)
        n_samples = max(_SAMPLES, _PER_SHARE * (n_points + n_reserve))
        samples = self._sample(n_samples, [*known.points, *known.pending])
        suggest = self._by_posterior if self._has_posterior() else self._by_refitting
        points = suggest(data, known.pending, samples, n_points, n_points + n_reserve)
        return Suggestions(points[:n_points], points[n_points:], learnt)

    def _by_posterior(
        self,
        data: _Data,
        pending: list[Point],
        samples: _Samples,
        n_refined: int,
        n: int,
    ) -> list[Point]:
        """Choose points one by one, with earlier ones counted as evaluated."""
        X = np.asarray(self._space.transform(data.points))
        posterior = Posterior(self._learnt, X, data.values)
        believed = [posterior.believe(x) for x in self._transformed(pending)]
        y_opt = min([*data.values, *believed])
        seen = posterior.watch(samples.X)
        points: list[Point] = []
        while len(points) < min(n, _MOST_ONE_BY_ONE):
            refined = len(points) < min(n_refined, _MOST_REFINED)
            model = posterior if refined else None
            point, x = self._best(seen, samples, y_opt, refine_by=model)
            y_opt = min(y_opt, posterior.believe_watched(x, seen))
            points.append(point)
        shares = self._shares(seen, samples, y_opt, n - len(points))
        return [*points, *shares]

    def _by_refitting(
        self,
        data: _Data,
        pending: list[Point],
        samples: _Samples,
        n_refined: int,
        n: int,
    ) -> list[Point]:
        """Choose a few points one by one, with a model fitted for each."""
        if pending:
            data.believe(self._model(data), self._space, pending)
        y_opt = min(data.values)
        model = self._model(data)
        points: list[Point] = []
        while len(points) < n_refined <= _MOST_REFITTED:
            if points:
                data.believe(model, self._space, points[-1:])
                model = self._model(data)
            seen = self._seen(model, samples.X)
            point, _ = self._best(seen, samples, y_opt, refine_by=model)
            points.append(point)
        seen = self._seen(model, samples.X)
        return [*points, *self._shares(seen, samples, y_opt, n - len(points))]

    # --- the model --------------------------------------------------------------------

    def _learn_if_due(self, known: Known) -> Any:
        """Learn the model's hyperparameters again once enough values are new."""
        n_known = len(known.values)
        if n_known < max(1, self._learnt_from * _RELEARN_GROWTH):
            return None
        chosen = _selection(known.values, _MOST_LEARNING, self._rng)
        points = [known.points[i] for i in chosen]
        model = clone(self._estimator)
        if isinstance(model, GaussianProcessRegressor) and self._learnt is not None:
            model.set_params(kernel=with_noise(self._learnt))
            if n_known < self._restarted_from * _RESTART_GROWTH:
                model.set_params(n_restarts_optimizer=0)
            else:
                self._restarted_from = n_known
        values = without_failures([known.values[i] for i in chosen])
        optimizer = getattr(model, "optimizer", None)
        if isinstance(model, GaussianProcessRegressor) and optimizer is not None:
            model.set_params(optimizer=with_prior(model.kernel))
        model.fit(self._space.transform(points), values)
        if optimizer is not None:
            model.set_params(optimizer=optimizer)  # as the user's own, for the results
        self._learnt, self._learnt_from = model, n_known
        if self._proposed is not None and len(self._functions) > 1:
            self._gains -= model.predict(np.vstack(self._proposed))
        return model

    def _model(self, data: _Data) -> Any:
        """Fit the model to evaluated and pending points, with learnt hyperparameters."""
        model = clone(self._estimator)
        if isinstance(model, GaussianProcessRegressor):
            model.set_params(kernel=with_noise(self._learnt), optimizer=None)
        return model.fit(self._space.transform(data.points), data.values)

    # --- the acquisition --------------------------------------------------------------

    def _sample(self, n_samples: int, known: list[Point]) -> _Samples:
        """Draw points, without known ones unless there are no others."""
        n_samples = min(n_samples, self._most_samples)
        points = self._space.rvs(n_samples=n_samples, random_state=self._rng)
        samples = _Samples(points, np.asarray(self._space.transform(points)))
        if self._no_duplicates:
            samples.leave_out(np.asarray(self._space.transform(known)))
        return samples

    def _best(
        self, seen: Any, samples: _Samples, y_opt: float, *, refine_by: Any
    ) -> tuple[Point, Any]:
        """Take the most promising point by one acquisition function.

        Parameters
        ----------
        seen : object
            The predictions at the samples.
        samples : _Samples
        y_opt : float
        refine_by : object or None
            A model with which to search around the best samples.
        """
        values = self._acquisitions(seen, samples.X, y_opt)
        values = [np.where(samples.free, one, np.inf) for one in values]
        self._proposed = [samples.X[np.argmin(one)] for one in values]
        chosen = self._draw_function()
        order = np.argsort(values[chosen])
        numeric = not self._space.is_categorical and self._space.constraint is None
        if refine_by is not None and numeric:
            x = self._refined(refine_by, samples.X[order[:_CENTRES]], y_opt, chosen)
            point: Point = self._space.inverse_transform(x.reshape(1, -1))[0]
            (x,) = self._transformed([point])
            if not self._no_duplicates or not samples.knows(x):
                samples.leave_out([x])
                return point, x
        x = samples.X[order[0]]
        samples.leave_out([x])
        return samples.points[order[0]], x

    def _refined(self, model: Any, centres: Any, y_opt: float, chosen: int) -> Any:
        """Search ever closer around some points."""
        low, high = np.array(self._space.transformed_bounds, dtype=float).T
        X = centres
        for width in _WIDTHS:
            steps = self._rng.normal(scale=width, size=(_PER_CENTRE, *X.shape))
            # Half of the steps change only a few coordinates, which helps in many dimensions.
            steps[::2] *= self._rng.random_sample(steps[::2].shape) < _SOME
            near = np.clip(X + steps * (high - low), low, high)
            X = np.vstack([X, near.reshape(-1, X.shape[1])])
            values = self._acquisitions(self._seen(model, X), X, y_opt)[chosen]
            X = X[np.argsort(values)[: len(centres)]]
        return X[0]

    def _shares(self, seen: Any, samples: _Samples, y_opt: float, n: int) -> list[Any]:
        """Take the best point of each of n shares of the sampled ones."""
        if n < 1:
            return []
        values = self._acquisitions(seen, samples.X, y_opt)
        self._proposed = self._proposed or [samples.X[np.argmin(one)] for one in values]
        points: list[Point] = []
        free = self._rng.permutation(np.flatnonzero(samples.free))
        for share in np.array_split(free, n):
            if len(share):
                best = np.argmin(values[self._draw_function()][share])
                points.append(samples.points[share[best]])
        return points

    def _transformed(self, points: list[Point]) -> Any:
        return np.asarray(self._space.transform(points)) if points else []

    def _has_posterior(self) -> bool:
        """Whether the model is a Gaussian process of numbers, which `Posterior` supports."""
        gaussian = isinstance(self._learnt, GaussianProcessRegressor)
        return gaussian and not self._space.is_categorical and not self._wants_model()

    def _wants_model(self) -> bool:
        """Whether an acquisition function needs more than mean and deviation."""
        return bool({"MES", "PVRS"} & set(self._functions))

    def _seen(self, model: Any, X: Any) -> Any:
        """Predict once for all acquisition functions."""
        if self._wants_model():
            return model
        if isinstance(model, GaussianProcessRegressor):
            # skopt's own way is an unoptimised ``einsum``, many times slower.
            return _Predicted(*PlainRegressor.predict(model, X, return_std=True))
        return _Predicted(*model.predict(X, return_std=True))

    def _acquisitions(self, seen: Any, X: Any, y_opt: float) -> list[Any]:
        """Evaluate the acquisition functions, lower is better."""
        return [
            _gaussian_acquisition(
                X,
                seen,
                y_opt=y_opt,
                acq_func=function,
                acq_func_kwargs=self._options,
            )
            for function in self._functions
        ]

    def _draw_function(self) -> int:
        """Choose an acquisition function by the past gains, as skopt does."""
        if len(self._functions) == 1:
            return 0
        weights = np.exp(self._eta * (self._gains - self._gains.max()))
        return int(self._rng.choice(len(weights), p=weights / weights.sum()))


@dataclass(frozen=True, slots=True)
class _Data:
    """The data of a model."""

    points: list[Point]
    values: list[float]

    def believe(self, model: Any, space: Any, points: list[Point]) -> None:
        """Add points with the values that a model expects there."""
        self.values.extend(float(y) for y in model.predict(space.transform(points)))
        self.points.extend(points)


class _Samples:
    """Sampled points, some of which must not be taken.

    Attributes
    ----------
    free : ndarray of bool
        The points that may be taken; all of them once none is left.
    """

    def __init__(self, points: list[Point], X: Any) -> None:
        self.points = points
        self.X = X
        self.free = np.ones(len(points), dtype=bool)
        self._keys = _keys(X)
        self._known: set[bytes] = set()

    def knows(self, x: Any) -> bool:
        """Whether a point was left out before."""
        return _keys([x])[0] in self._known

    def leave_out(self, X: Any) -> None:
        """Leave points out."""
        self._known.update(_keys(X))
        self.free = np.array([key not in self._known for key in self._keys])
        if not self.free.any():
            self.free[:] = True


@dataclass(frozen=True, slots=True)
class _Predicted:
    """A model whose predictions are known."""

    mean: Any
    std: Any

    def predict(self, _X: Any, **_options: Any) -> tuple[Any, Any]:
        return self.mean, self.std


def _keys(X: Any) -> list[bytes]:
    return [row.tobytes() for row in np.round(np.asarray(X, dtype=float), 9)]


def _selection(values: list[float], most: int, rng: Any) -> list[int]:
    """Choose points to train on: all, or the best ones and some of the others."""
    if len(values) <= most:
        return list(range(len(values)))
    order = np.argsort(without_failures(values))
    best, others = order[: most // 4], order[most // 4 :]
    drawn = rng.choice(others, most - len(best), replace=False)
    return sorted(int(i) for i in (*best, *drawn))
