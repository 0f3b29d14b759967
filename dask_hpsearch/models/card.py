"""Model cards: what a champion is, where it is from, and whom it has beaten."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from dask_hpsearch.exceptions import UntrustedObjectError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PACKAGES = (
    "dask",
    "dask-hpsearch",
    "joblib",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
)
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "dask_hpsearch": "dask-hpsearch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Description of one version of a champion.

    Attributes
    ----------
    name : str
        Of the model: the last part of its URL.
    version : int
        0 in a card of MLflow's registry that was not read through it.
    created : str
        When it was promoted, in UTC, as ISO 8601.
    model : dict
        Class, text, parameters, number of features and names of classes.
    origin : dict
        The search and the run that it is from, with the pins of the run's data.
    scores : dict
        "challenger" is this model; "champion" the one that it replaced, None if there was
        none or it was not scored.
    metric : str
    gain : float or None
    interval : tuple of float or None
        Of the gain.
    rule : dict
        ``min_gain``, ``confidence``, ``n_resamples`` and ``random_state``.
    holdout : dict
        Number of rows and features, and what identifies the data.
    replaced : int or None
        The version that it has replaced.
    environment : dict
        Versions of Python and packages.
    """

    name: str
    version: int
    created: str
    model: dict[str, Any]
    origin: dict[str, Any]
    scores: dict[str, float | None]
    metric: str
    gain: float | None
    interval: tuple[float, float] | None
    rule: dict[str, Any]
    holdout: dict[str, Any]
    replaced: int | None
    environment: dict[str, str]
    format: int = field(default=1)

    def to_json(self) -> str:
        """Return the card as JSON; `from_json` is the inverse."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        UntrustedObjectError
            If it is not a card.
        """
        try:
            values = json.loads(text)
            interval = values["interval"]
            if interval is not None:
                values["interval"] = (float(interval[0]), float(interval[1]))
            return cls(**values)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            msg = f"card.json is not the card of a champion: {error}"
            raise UntrustedObjectError(msg) from error

    def to_markdown(self) -> str:
        """Return the card for readers."""
        replaced = "none" if self.replaced is None else f"version {self.replaced}"
        sections = [
            f"# {self.name}, version {self.version}\n",
            _table(
                {
                    "promoted": self.created,
                    "model": f"`{self.model['class']}`",
                    "replaced": replaced,
                    f"{self.metric} of this model": _shown(self.scores["challenger"]),
                    f"{self.metric} of the replaced one": _shown(
                        self.scores["champion"]
                    ),
                    "gain": self._gain_text(),
                    "rows": self.holdout["n_rows"],
                }
            ),
            f"## Parameters\n\n{_table(self.model['params'], code=True)}",
            f"## Origin\n\n{_code(self.origin)}" if self.origin else "",
            f"## Holdout\n\n{_code(self.holdout)}",
            f"## Rule\n\n{_table(dict(sorted(self.rule.items())))}",
            f"## Environment\n\n{_table(dict(sorted(self.environment.items())))}",
        ]
        return "\n".join(part for part in sections if part)

    def _gain_text(self) -> str:
        if self.gain is None or self.interval is None:
            return "not compared"
        low, high = self.interval
        return f"{self.gain:+.4g} ({self.rule['confidence']:.0%} interval {low:+.4g} to {high:+.4g})"

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


def environment_of(model: Any) -> dict[str, str]:
    """Return versions of Python and of the packages that a model is made of."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in sorted({*_PACKAGES, *_distributions_of(model)}):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _distributions_of(model: Any) -> Iterable[str]:
    """Yield the distributions of the classes in a model, by their usual names."""
    params = model.get_params(deep=True) if hasattr(model, "get_params") else {}
    for value in (model, *params.values()):
        package = type(value).__module__.partition(".")[0]
        if package not in {"builtins", "__main__"}:
            yield _DISTRIBUTIONS.get(package, package)


def _shown(score: float | None) -> str:
    return "none" if score is None else f"{score:.6g}"


def _table(values: dict[str, Any], *, code: bool = False) -> str:
    if not values:
        return "None.\n"
    rows = ["| | |", "|---|---|"]
    for name, value in values.items():
        text = str(value).replace("\n", " ").replace("|", "\\|")
        rows.append(f"| {name} | {f'`{text}`' if code else text} |")
    return "\n".join(rows) + "\n"


def _code(values: dict[str, Any]) -> str:
    return f"```json\n{json.dumps(values, indent=2, sort_keys=True)}\n```\n"
