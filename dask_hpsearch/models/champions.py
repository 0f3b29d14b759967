"""Where champions are kept: one interface for folders, buckets and MLflow's registry."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch.exceptions import ChampionNotFoundError
from dask_hpsearch.models.signed_version import Trust

if TYPE_CHECKING:
    from dask_hpsearch.models.card import ModelCard
    from dask_hpsearch.models.signed_version import SignedPointer

_REGISTRY = "models:/"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A version that is to become the champion.

    Attributes
    ----------
    model : bytes
        Pickle of the model.
    card : ModelCard
        Its version is set when it is stored.
    fitted : object
        The model itself.
    """

    model: bytes
    card: ModelCard
    fitted: Any


class Champions(Protocol):
    """The champions of one model, by version."""

    @property
    def url(self) -> str:
        """As `open_champions` takes it."""

    @property
    def name(self) -> str:
        """The last part of the URL."""

    def current(self) -> int | None:
        """Return the version of the champion; None if there is none."""

    def versions(self) -> list[int]:
        """Return all versions that have been champions, ascending."""

    def pointer(self, version: int, trust: Trust) -> SignedPointer:
        """Read and verify the pointer to a version.

        Raises
        ------
        ObjectNotFoundError
            If there is no such version.
        UntrustedObjectError
        """

    def read(self, pointer: SignedPointer, name: str) -> bytes:
        """Read an object of a version, by its name in the version's folder."""

    def replace(self, champion: int | None, new: NewVersion) -> int | None:
        """Make a new version the champion, if the champion is still the same.

        The version is written first, and the pointer to it last: a process that is killed
        leaves the old champion.

        Parameters
        ----------
        champion : int or None
            The version that is to be replaced.
        new : NewVersion

        Returns
        -------
        int or None
            Its version; None if another one has become the champion meanwhile. Then nothing
            of this one is left.
        """


def open_champions(url: str | os.PathLike[str]) -> Champions:
    """Open the champions of a model, which need not exist yet.

    Parameters
    ----------
    url : str or path-like
        As `open_store` takes it, or ``models:/NAME`` for MLflow's registry.

    Raises
    ------
    StoreError
        If it is neither.
    MissingExtraError
        If the packages for it are not installed.
    """
    text = os.fspath(url)
    if text.startswith(_REGISTRY):
        from dask_hpsearch.models.mlflow_registry import RegisteredChampions

        return RegisteredChampions.open(text.removeprefix(_REGISTRY))
    from dask_hpsearch.models.champion_folder import ChampionFolder

    return ChampionFolder.open(url)


def load_champion(
    url: str | os.PathLike[str],
    *,
    version: int | None = None,
    signed_by: str | None = None,
    trust: bool = False,
) -> Any:
    """Load the champion, after its signature was verified.

    Parameters
    ----------
    url : str or Path
        The ``to`` of `promote`.
    version : int, optional
        An earlier champion.
    signed_by : str, optional
        Public key of the user who promoted it, as `promote` returns it; default: your own.
    trust : bool
        Load a champion that any key has signed: its pickle can run any code.

    Returns
    -------
    object
        The fitted estimator.

    Raises
    ------
    ChampionNotFoundError
        If there is none.
    UntrustedObjectError
        If it was altered, or a key signed it that is not trusted.
    VersionSkewError
        If other versions of Python, scikit-learn or numpy wrote it.
    ResultUnreadableError
        If it refers to names that this process lacks.
    StoreError
        If the storage cannot be read.
    """
    champions = open_champions(url)
    trusted = Trust(signed_by=signed_by, anyone=trust)
    pointer = champions.pointer(_version(champions, version), trusted)
    return pointer.model(lambda name: champions.read(pointer, name))


def champion_card(
    url: str | os.PathLike[str],
    *,
    version: int | None = None,
    signed_by: str | None = None,
    trust: bool = False,
) -> ModelCard:
    """Return the card of the champion, or of an earlier one; arguments as `load_champion`.

    Raises
    ------
    ChampionNotFoundError
        If there is none.
    UntrustedObjectError
        If it was altered, or a key signed it that is not trusted.
    StoreError
        If the storage cannot be read.
    """
    champions = open_champions(url)
    trusted = Trust(signed_by=signed_by, anyone=trust)
    return _card(champions, _version(champions, version), trusted)


def champion_history(
    url: str | os.PathLike[str], *, signed_by: str | None = None, trust: bool = False
) -> list[ModelCard]:
    """Return the cards of all champions so far, the current one last.

    Arguments and errors as for `champion_card`; without any champion, the list is empty.
    """
    champions = open_champions(url)
    trusted = Trust(signed_by=signed_by, anyone=trust)
    return [_card(champions, one, trusted) for one in champions.versions()]


def _card(champions: Champions, version: int, trust: Trust) -> ModelCard:
    from dataclasses import replace

    pointer = champions.pointer(version, trust)
    card = pointer.card(lambda name: champions.read(pointer, name))
    return replace(card, version=version)


def _version(champions: Champions, version: int | None) -> int:
    if version is not None:
        return version
    current = champions.current()
    if current is None:
        msg = (
            f"there is no champion at {champions.url}: check the URL, or make the first one "
            "with promote"
        )
        raise ChampionNotFoundError(msg)
    return current
