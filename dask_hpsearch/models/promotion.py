"""Promotion: a challenger replaces the champion only if it is better on held-out data."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import HPSearchError, PromotionError
from dask_hpsearch.models.card import ModelCard, environment_of
from dask_hpsearch.models.challenger import challenger_of, plain, scorer_of
from dask_hpsearch.models.champions import NewVersion, open_champions
from dask_hpsearch.models.comparison import Bootstrap, Gain, ScoredModel, compare
from dask_hpsearch.models.holdout import read_holdout
from dask_hpsearch.models.signed_version import Trust, pickled
from dask_hpsearch.safe_text import repr_of
from dask_hpsearch.security.signing import user_key

if TYPE_CHECKING:
    import os

    from dask_hpsearch.models.challenger import Challenger
    from dask_hpsearch.models.champions import Champions
    from dask_hpsearch.models.holdout import Holdout

# How often a challenger meets a new champion that others have promoted meanwhile.
_ATTEMPTS = 20
_LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What came of a promotion.

    Attributes
    ----------
    promoted : bool
        Whether the challenger is the champion now.
    version : int
        Of the champion now.
    scores : dict of str to float or None
        "challenger" and "champion" on the holdout; the champion's is None if there was none.
    gain : float or None
        The difference; None without a champion.
    interval : tuple of float or None
        Of the gain.
    reason : str
        Why it was promoted, or not.
    metric : str
    url : str
        As `load_champion` takes it.
    signed_by : str
        Public key of the user who promoted the champion: other users pass it to
        `load_champion`.
    """

    promoted: bool
    version: int
    scores: dict[str, float | None]
    gain: float | None
    interval: tuple[float, float] | None
    reason: str
    metric: str
    url: str
    signed_by: str

    def __repr__(self) -> str:
        what = "promoted" if self.promoted else "not promoted"
        return f"<Promotion: {what}, champion is version {self.version}: {self.reason}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a challenger replaces the champion.

    Attributes
    ----------
    min_gain : float
    bootstrap : Bootstrap
    """

    min_gain: float
    bootstrap: Bootstrap

    @property
    def always(self) -> bool:
        """Whether any champion is replaced."""
        return self.min_gain == -math.inf

    def check(self) -> None:
        """Refuse invalid values.

        Raises
        ------
        ValueError
        """
        if math.isnan(self.min_gain) or self.min_gain == math.inf:
            msg = (
                "min_gain must be a finite number, or -math.inf to replace any champion, got "
                f"{self.min_gain!r}"
            )
            raise ValueError(msg)
        self.bootstrap.check()

    def decide(self, gain: Gain) -> tuple[bool, str]:
        """Return whether a gain is enough, and why.

        It is if the gain, and the lower bound of its interval, are above ``min_gain``.
        """
        low, high = gain.interval
        shown = (
            f"the gain of {gain.value:.4g} has a {self.bootstrap.confidence:.0%} interval from "
            f"{low:.4g} to {high:.4g}"
        )
        if self.always:
            return True, f"{shown}, and any champion was to be replaced"
        if gain.value <= self.min_gain:
            return False, f"{shown}, and is not above {self.min_gain:g}"
        if low <= self.min_gain:
            return False, f"{shown}, whose lower bound is not above {self.min_gain:g}"
        return True, f"{shown}, which is above {self.min_gain:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """The comparison with one champion."""

    promoted: bool
    reason: str
    scores: dict[str, float | None]
    gain: Gain | None = field(default=None)
    signed_by: str = field(default="")


def promote(
    challenger: Any,
    X_holdout: Any,
    y_holdout: Any,
    *,
    to: str | os.PathLike[str],
    scoring: Any = None,
    min_gain: float = 0.0,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: int = 0,
    signed_by: str | None = None,
    trust: bool = False,
) -> Promotion:
    """Make a model the champion at a URL, if it is better than the present one.

    Champion and challenger are scored on the same held-out rows. The challenger replaces the
    champion if the gain, and the lower bound of its bootstrap interval, are above
    ``min_gain``. Without a champion, the challenger becomes the first one. If another process
    replaces the champion meanwhile, the challenger is compared with the new one.

    Parameters
    ----------
    challenger : SearchRun, URL of a run, fitted search, DaskSearchCV, or fitted estimator
        Of a search, its refitted best estimator.
    X_holdout : array-like of shape (n_rows, n_features), or str
        Rows that neither model was trained on; or their URL, as `DaskSearchCV.fit` takes it.
    y_holdout : array-like of shape (n_rows,) or (n_rows, n_outputs), or str
    to : str or Path
        ``gs://BUCKET/FOLDER``, a folder here, or ``models:/NAME`` for MLflow's registry. Its
        last part is the model's name.
    scoring : str or callable, optional
        One scorer; higher is better. Default: the one by which the challenger's search chose;
        else accuracy of a classifier, R² of a regressor.
    min_gain : float
        How much better the challenger must be. Negative: it may be worse by so much.
        ``-math.inf``: it replaces any champion, one that cannot be loaded included.
    confidence : float
        Of the interval, which has two sides.
    n_resamples : int
        How often rows are drawn for the interval.
    random_state : int
        Seed of these draws.
    signed_by : str, optional
        Public key of the user who promoted the champion; default: your own.
    trust : bool
        Load a champion that any key has signed: its pickle can run any code.

    Returns
    -------
    Promotion

    Raises
    ------
    PromotionError
        If one of the models, or the holdout, does not allow a comparison; or if other
        processes replace the champion again and again.
    UntrustedObjectError
        If the champion was altered, or a key signed it that is not trusted.
    VersionSkewError, ResultUnreadableError
        If the champion cannot be loaded here.
    UnpicklableError
        If the challenger cannot be pickled.
    StoreError
        If the storage cannot be used. The champion is still the old one, or, if an answer of
        the storage was lost, the new one as a whole.
    ValueError
        If ``min_gain``, ``confidence``, ``n_resamples`` or ``scoring`` is invalid.
    """
    bootstrap = Bootstrap(
        confidence=confidence, n_resamples=n_resamples, random_state=random_state
    )
    rule = Rule(min_gain=min_gain, bootstrap=bootstrap)
    rule.check()
    champions = open_champions(to)
    found = challenger_of(challenger)
    scorer, metric = scorer_of(found, scoring)
    holdout = read_holdout(X_holdout, y_holdout)
    _check_features("challenger", found.model, holdout)
    contest = _Contest(
        challenger=found,
        scored=ScoredModel("challenger", found.model, scorer, holdout),
        scorer=scorer,
        metric=metric,
        holdout=holdout,
        rule=rule,
        trust=Trust(signed_by=signed_by, anyone=trust),
    )
    return contest.decide(champions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contest:
    """A challenger that meets one champion after the other."""

    challenger: Challenger
    scored: ScoredModel
    scorer: Any
    metric: str
    holdout: Holdout
    rule: Rule
    trust: Trust

    def decide(self, champions: Champions) -> Promotion:
        """Compare with the champion until the outcome holds."""
        pickle = None
        for _ in range(_ATTEMPTS):
            version = champions.current()
            verdict = self._verdict(champions, version)
            if not verdict.promoted:
                assert version is not None  # noqa: S101 (the first one is promoted)
                return self._outcome(champions, verdict, version)
            if pickle is None:
                pickle = pickled(self.challenger.model)
            new = NewVersion(
                model=pickle,
                card=self._card(champions, verdict, version),
                fitted=self.challenger.model,
            )
            made = champions.replace(version, new)
            if made is not None:
                return self._outcome(champions, verdict, made)
        msg = (
            f"other processes have replaced the champion at {champions.url} {_ATTEMPTS} times "
            "during this promotion: try again when fewer of them run"
        )
        raise PromotionError(msg)

    def _verdict(self, champions: Champions, version: int | None) -> _Verdict:
        scores = {"challenger": self.scored.score, "champion": None}
        if version is None:
            return _Verdict(
                promoted=True, reason="there was no champion", scores=scores
            )
        try:
            champion, signed_by = self._scored_champion(champions, version)
        except HPSearchError as error:
            if self.rule.always:
                reason = (
                    f"any champion was to be replaced; version {version} could not be "
                    f"compared ({type(error).__name__})"
                )
                return _Verdict(promoted=True, reason=reason, scores=scores)
            error.add_note(
                f"Nothing was promoted. promote(…, min_gain=-math.inf) replaces version {version} "
                "without a comparison"
            )
            raise
        gain = compare(
            self.scored,
            champion,
            n_rows=self.holdout.n_rows,
            bootstrap=self.rule.bootstrap,
        )
        promoted, reason = self.rule.decide(gain)
        scores["champion"] = champion.score
        return _Verdict(
            promoted=promoted,
            reason=reason,
            scores=scores,
            gain=gain,
            signed_by=signed_by,
        )

    def _scored_champion(
        self, champions: Champions, version: int
    ) -> tuple[ScoredModel, str]:
        """Load and score the champion; return it with the key that signed it."""
        pointer = champions.pointer(version, self.trust)
        model = pointer.model(lambda name: champions.read(pointer, name))
        _check_features("champion", model, self.holdout)
        _check_classes(self.challenger.model, model)
        scored = ScoredModel("champion", model, self.scorer, self.holdout)
        return scored, pointer.public

    def _outcome(
        self, champions: Champions, verdict: _Verdict, version: int
    ) -> Promotion:
        gain = verdict.gain
        return Promotion(
            promoted=verdict.promoted,
            version=version,
            scores=verdict.scores,
            gain=None if gain is None else gain.value,
            interval=None if gain is None else gain.interval,
            reason=verdict.reason,
            metric=self.metric,
            url=champions.url,
            signed_by=user_key().public if verdict.promoted else verdict.signed_by,
        )

    def _card(
        self, champions: Champions, verdict: _Verdict, replaced: int | None
    ) -> ModelCard:
        gain, bootstrap = verdict.gain, self.rule.bootstrap
        model = self.challenger.model
        holdout: dict[str, Any] = {
            "n_rows": self.holdout.n_rows,
            "n_features": self.holdout.n_features,
        }
        return ModelCard(
            name=champions.name,
            version=0,
            created=dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
            model=_described(model),
            origin=self.challenger.origin,
            scores=verdict.scores,
            metric=self.metric,
            gain=None if gain is None else gain.value,
            interval=None if gain is None else gain.interval,
            rule={
                "min_gain": plain(self.rule.min_gain),
                "confidence": bootstrap.confidence,
                "n_resamples": bootstrap.n_resamples,
                "random_state": bootstrap.random_state,
                "reason": verdict.reason,
            },
            holdout=holdout | {"data": self.holdout.pins},
            replaced=replaced,
            environment=environment_of(model),
        )


def _described(model: Any) -> dict[str, Any]:
    kind = type(model)
    params = model.get_params(deep=True) if hasattr(model, "get_params") else {}
    classes = _classes(model)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "text": repr_of(model, _LONGEST_TEXT),
        "params": {name: plain(value) for name, value in sorted(params.items())},
        "n_features": getattr(model, "n_features_in_", None),
        "classes": None if classes is None else [plain(one) for one in classes],
    }


def _classes(model: Any) -> list[Any] | None:
    """Return the classes of a classifier; None if it has several outputs, or none."""
    classes = getattr(model, "classes_", None)
    return None if classes is None or isinstance(classes, list) else list(classes)


def _check_features(name: str, model: Any, holdout: Holdout) -> None:
    expected = getattr(model, "n_features_in_", None)
    if None not in (expected, holdout.n_features) and expected != holdout.n_features:
        msg = (
            f"the {name} was trained on {expected} features, but the holdout has "
            f"{holdout.n_features}: pass a holdout with the same columns"
        )
        raise PromotionError(msg)


def _check_classes(challenger: Any, champion: Any) -> None:
    ours, theirs = _classes(challenger), _classes(champion)
    if (ours is None) != (theirs is None):
        kinds = [
            "no classifier" if one is None else "a classifier" for one in (ours, theirs)
        ]
        msg = f"the challenger is {kinds[0]}, but the champion is {kinds[1]}: choose another URL"
        raise PromotionError(msg)
    if ours is not None and theirs is not None and set(ours) != set(theirs):
        msg = (
            f"the challenger knows {len(ours)} classes, {repr_of(ours, 200)}, but the champion "
            f"knows {len(theirs)}, {repr_of(theirs, 200)}"
        )
        raise PromotionError(msg)
