"""The objects of one version of a champion, and their signatures.

model.pkl     the model, sealed with the promoter's key
card.json     its card; its digest is in the pointer
card.md       the same for readers; nothing is read from it

A pointer names a version as the champion. It is signed, and has the digests of model and card.
Signatures cover the name of the model, which is the last part of its URL: a champion that was
copied from another model is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import (
    HPSearchError,
    ResultUnreadableError,
    UntrustedObjectError,
    VersionSkewError,
)
from dask_hpsearch.journal import main_names
from dask_hpsearch.journal.folder import dump, versions
from dask_hpsearch.models.card import ModelCard
from dask_hpsearch.safe_text import message_of
from dask_hpsearch.security import signing

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL, CARD, CARD_TEXT = "model.pkl", "card.json", "card.md"
_POINTER = "champion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose champions are loaded.

    Attributes
    ----------
    signed_by : str or None
        Public key of the promoter, in hexadecimal; None: the user's own.
    anyone : bool
        Trust a champion that any key has signed.
    """

    signed_by: str | None = None
    anyone: bool = False

    def check(self, public: str, url: str) -> None:
        """Refuse a key that is not trusted.

        Raises
        ------
        UntrustedObjectError
        """
        if self.anyone:
            return
        wanted = (self.signed_by or signing.user_key().public).lower()
        if public.lower() != wanted:
            msg = (
                f"the champion at {url} was signed with another key ({public}): loading it "
                "could run any code. If you trust the owner of this key, pass it as signed_by="
            )
            raise UntrustedObjectError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Names a version as the champion.

    Attributes
    ----------
    folder : str
        Of the version's objects.
    model, card : str
        SHA-256 of the model's envelope and of the card.
    versions : dict
        Of what the pickle of the model depends on.
    """

    folder: str
    model: str
    card: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPointer:
    """A pointer whose signature was verified.

    Attributes
    ----------
    pointer : Pointer
    scope : str
        The name of the model, which its signatures cover.
    public : str
        The key that has signed it.
    """

    pointer: Pointer
    scope: str
    public: str

    def card(self, read: Callable[[str], bytes]) -> ModelCard:
        """Read the card.

        Parameters
        ----------
        read : callable
            Returns an object of the version by its name.

        Raises
        ------
        UntrustedObjectError
            If it was altered.
        """
        content = read(CARD)
        self._check_digest(CARD, content, self.pointer.card)
        return ModelCard.from_json(content)

    def model(self, read: Callable[[str], bytes]) -> Any:
        """Load the model; parameters as for `card`.

        Raises
        ------
        UntrustedObjectError
            If it was altered.
        VersionSkewError
            If other versions wrote it than this environment has.
        ResultUnreadableError
            If it refers to names that this process lacks.
        """
        sealed = read(MODEL)
        self._check_digest(MODEL, sealed, self.pointer.model)
        content = signing.unseal(self.public, self.scope, self._path(MODEL), sealed)
        self._check_versions()
        try:
            return main_names.loads(content)
        except HPSearchError:
            raise
        except Exception as error:
            msg = (
                f"the champion {self.scope!r} cannot be loaded here: {type(error).__name__}: "
                f"{message_of(error)}. Import or define what it refers to first"
            )
            raise ResultUnreadableError(msg) from error

    def check_folder(self, prefix: str) -> None:
        """Check that the version's folder is the one that its number demands.

        Raises
        ------
        UntrustedObjectError
            If the pointer was copied from another version.
        """
        if not self.pointer.folder.startswith(prefix):
            msg = (
                f"the pointer to version {prefix!r} of {self.scope!r} is not trusted: it was "
                f"copied from the one to {self.pointer.folder!r}"
            )
            raise UntrustedObjectError(msg)

    def _check_digest(self, name: str, content: bytes, expected: str) -> None:
        if hashlib.sha256(content).hexdigest() != expected:
            msg = (
                f"{self._path(name)} of the champion {self.scope!r} is not trusted, and was not "
                "loaded: it was altered after it was promoted"
            )
            raise UntrustedObjectError(msg)

    def _check_versions(self) -> None:
        here = versions()
        written = self.pointer.versions
        differ = [name for name, old in written.items() if here.get(name) != old]
        if differ:
            old = ", ".join(f"{name} {written[name]}" for name in differ)
            new = ", ".join(f"{name} {here.get(name)}" for name in differ)
            msg = (
                f"the champion {self.scope!r} was made with {old}, here is {new}: load it in "
                "an environment with those versions"
            )
            raise VersionSkewError(msg)

    def _path(self, name: str) -> str:
        return f"{self.pointer.folder}/{name}"


def scope_of(name: str) -> str:
    """Return what the signatures of a model's champions cover besides their names."""
    return f"champions of {name}"


def signed_objects(
    model: bytes, card: ModelCard, *, folder: str
) -> tuple[dict[str, bytes], bytes]:
    """Sign a version with this user's key.

    Parameters
    ----------
    model : bytes
        Its pickle.
    card : ModelCard
    folder : str
        Of the version's objects.

    Returns
    -------
    objects : dict of str to bytes
        By their names in the folder.
    pointer : bytes
        To be written last.
    """
    key, scope = signing.user_key(), scope_of(card.name)
    objects = {
        MODEL: signing.seal(key, scope, f"{folder}/{MODEL}", model),
        CARD: card.to_json().encode(),
        CARD_TEXT: card.to_markdown().encode(),
    }
    pointer = Pointer(
        folder=folder,
        model=hashlib.sha256(objects[MODEL]).hexdigest(),
        card=hashlib.sha256(objects[CARD]).hexdigest(),
        versions=versions(),
    )
    body = json.dumps(asdict(pointer), sort_keys=True)
    signed = {
        "body": body,
        "public": key.public,
        "signature": key.sign(scope, _POINTER, body.encode()),
    }
    return objects, json.dumps(signed, sort_keys=True).encode()


def read_pointer(content: bytes, *, name: str, url: str, trust: Trust) -> SignedPointer:
    """Verify a pointer.

    Parameters
    ----------
    content : bytes
    name : str
        Of the model.
    url : str
        Of the model, in errors.
    trust : Trust

    Raises
    ------
    UntrustedObjectError
        If it is not a pointer, was altered, or a key signed it that is not trusted.
    """
    try:
        signed = json.loads(content)
        body, public = str(signed["body"]), str(signed["public"])
        signature = str(signed["signature"])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"the pointer to the champion at {url} is not one: {error}"
        raise UntrustedObjectError(msg) from error
    trust.check(public, url)
    scope = scope_of(name)
    try:
        signing.verify(public, scope, _POINTER, body.encode(), signature)
    except UntrustedObjectError as error:
        msg = (
            f"the champion at {url} is not trusted, and was not loaded: the signature of its "
            f"pointer is invalid. It was altered, or is of a model with another name than {name!r}"
        )
        raise UntrustedObjectError(msg) from error
    return SignedPointer(
        pointer=Pointer(**json.loads(body)), scope=scope, public=public
    )


def pickled(model: Any) -> bytes:
    """Pickle a model.

    Raises
    ------
    UnpicklableError
        If it cannot be pickled.
    """
    return dump("the challenger", model)
