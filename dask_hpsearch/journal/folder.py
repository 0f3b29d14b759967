"""The folder of one run: manifest, search, calls, journal, requests, results.

manifest.json                 description of the run, signed by the user's key
search.pkl                    the search as the user passed it, sealed by the run's key
calls/00000-0.pkl             candidates and splits of a call (and generation), sealed
brackets/00000.pkl            parameters of the models that a bracket trains, sealed
models/DIGEST                 the state of a model between two training tasks
journal/, snapshots/          events, sealed
requests/stopped-…            requests to the driver: stop or cancel
extensions/00001              candidates that a generation adds
result-0.pkl                  the fitted search of a generation, sealed
result-without-estimator-0.pkl
logs/…                        logs of the drivers, and of the pods of their cluster
modules/…                     user modules, sealed, for a driver on another machine
"""

from __future__ import annotations

import json
import platform
import re
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import sklearn

from dask_hpsearch import paths
from dask_hpsearch.exceptions import (
    ObjectNotFoundError,
    RunNotFoundError,
    UnpicklableError,
    UntrustedObjectError,
    VersionSkewError,
)
from dask_hpsearch.journal import main_names
from dask_hpsearch.safe_text import message_of
from dask_hpsearch.security import signing

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.stores import Store

MANIFEST, SEARCH = "manifest.json", "search.pkl"
RUNS = "runs"
_RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")


def versions() -> dict[str, str]:
    """Return versions that a run's pickles depend on."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__.split(".")[0],
    }


@dataclass(frozen=True, slots=True)
class Manifest:
    """Description of a run.

    Attributes
    ----------
    run_id, task_name : str
    created : float
        Seconds since the epoch.
    search_class, search_text : str
        Class and representation of the search.
    data : dict
        Digest and size of X, y and of the other arguments of ``fit``.
    settings : dict
        Of the driver: ``fit_timeout_s`` and the like.
    traits : dict
        Properties of the search that readers need: ``refit``, ``extendable``.
    versions : dict
    public : str
        The run's public key.
    """

    run_id: str
    task_name: str
    created: float
    search_class: str
    search_text: str
    data: dict[str, Any]
    settings: dict[str, Any]
    traits: dict[str, Any]
    versions: dict[str, str]
    public: str
    format: int = field(default=1)


def new_run_id() -> str:
    """Return the id of a new run: unique, and sorted by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"


class RunFolder:
    """One run's objects.

    Parameters
    ----------
    store : Store
        The run's own folder.
    manifest : Manifest
    key : SigningKey or None
        The run's private key; None: read only.
    """

    def __init__(
        self, store: Store, manifest: Manifest, key: signing.SigningKey | None
    ) -> None:
        self.store = store
        self.manifest = manifest
        self.key = key
        self._search_pickle: bytes | None = None

    @property
    def run_id(self) -> str:
        """The run's name within its store."""
        return self.manifest.run_id

    @classmethod
    def create(
        cls,
        parent: Store,
        manifest: dict[str, Any],
        search: Any,
        *,
        cache_search: bool = False,
    ) -> RunFolder:
        """Create a run in a store; it exists once the manifest is written, which is last.

        Parameters
        ----------
        parent : Store
        manifest : dict
            Fields of `Manifest` that describe the search.
        search : object
        cache_search : bool
            Whether to keep the search's pickle in memory for `read_search_pickle`.

        Raises
        ------
        UnpicklableError
            If the search cannot be pickled.
        StoreError
            If the store cannot be written.
        """
        run_id = new_run_id()
        store = parent.child(f"{RUNS}/{run_id}")
        key = signing.SigningKey.generate()
        whole = Manifest(
            run_id=run_id,
            created=time.time(),
            versions=versions(),
            public=key.public,
            **manifest,
        )
        folder = cls(store, whole, key)
        pickled = dump(SEARCH, search)
        folder._create_sealed(SEARCH, pickled)
        if cache_search:
            folder._search_pickle = pickled
        key.to_file(private_key_path(run_id))
        body = json.dumps(asdict(whole), sort_keys=True)
        user = signing.user_key()
        signed = {
            "body": body,
            "public": user.public,
            "signature": user.sign(run_id, MANIFEST, body.encode()),
        }
        store.create(MANIFEST, json.dumps(signed).encode())
        return folder

    @classmethod
    def open(
        cls,
        store: Store,
        *,
        trusted: bool = False,
        maker: str | None = None,
        key: signing.SigningKey | None = None,
    ) -> RunFolder:
        """Open a run; its pickles are trusted only if this user made it.

        Parameters
        ----------
        store : Store
        trusted : bool
            Trust the pickles of any user.
        maker : str, optional
            Public key of the user who must have made it; default: this user's.
        key : SigningKey, optional
            The run's private key; default: the one on this machine, if there is one.

        Raises
        ------
        RunNotFoundError
            If there is no run.
        UntrustedObjectError
            If another user made it, or its manifest was altered.
        """
        try:
            signed = json.loads(store.read(MANIFEST))
            body, public = signed["body"], signed["public"]
            signature = signed["signature"]
            manifest = Manifest(**json.loads(body))
            _check_run_id(manifest.run_id)
        except ObjectNotFoundError as error:
            msg = (
                f"no run at {store.url!r}: check the URL, or list the runs of a store "
                "by SearchRun.list(store) or the command 'dask-hpsearch runs STORE'"
            )
            raise RunNotFoundError(msg) from error
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{MANIFEST} at {store.url!r} is not the manifest of a run: {error}"
            raise UntrustedObjectError(msg) from error
        signing.verify(public, manifest.run_id, MANIFEST, body.encode(), signature)
        if not trusted and public != (maker or signing.user_key().public):
            msg = (
                f"the run at {store.url!r} was signed with another user's key "
                f"({public[:16]}…): its pickles could run any code. If you trust that "
                "user, pass trust=True"
            )
            raise UntrustedObjectError(msg)
        return cls(store, manifest, key or _private_key(manifest))

    def check_versions(self) -> None:
        """Check that this environment has the versions that wrote the run.

        Raises
        ------
        VersionSkewError
            If not; it names both versions.
        """
        skew = self.version_skew()
        if skew:
            raise VersionSkewError(skew)

    def version_skew(self) -> str | None:
        """Return in one sentence which versions wrote the run and which are here."""
        here = versions()
        written = self.manifest.versions
        differ = [name for name, old in written.items() if here.get(name) != old]
        if not differ:
            return None
        old = ", ".join(f"{name} {written[name]}" for name in differ)
        new = ", ".join(f"{name} {here.get(name)}" for name in differ)
        return (
            f"run {self.run_id} was made with {old}, here is {new}: open its result in "
            "an environment with those versions"
        )

    def signing_key(self) -> signing.SigningKey:
        """Return the run's private key.

        Raises
        ------
        UntrustedObjectError
            If it is not on this machine.
        """
        if self.key is None:
            msg = (
                f"the private key of run {self.run_id} is not on this machine: only the "
                "user who made the run can continue it, on the machine that has the key"
            )
            raise UntrustedObjectError(msg)
        return self.key

    def create_pickle(self, name: str, value: Any) -> bool:
        """Pickle and seal an object into the folder; return False if it exists.

        Raises
        ------
        UnpicklableError
            If the object cannot be pickled.
        StoreError
            If the store cannot be written.
        """
        self.signing_key()  # without it, nothing is pickled
        return self._create_sealed(name, dump(name, value))

    def load_pickle(self, name: str) -> Any:
        """Check an object's seal and this environment's versions, then unpickle it."""
        content = self._read_sealed(name)
        self.check_versions()
        return main_names.loads(content)  # the seal is the run's

    def read_search_pickle(self) -> bytes:
        """Return the pickle of the search; from memory if `create` has cached it."""
        cached = self._search_pickle
        return self._read_sealed(SEARCH) if cached is None else cached

    def forget_search_pickle(self) -> None:
        """Free the memory of a cached pickle."""
        self._search_pickle = None

    def _create_sealed(self, name: str, content: bytes) -> bool:
        sealed = signing.seal(self.signing_key(), self.run_id, name, content)
        return self.store.create(name, sealed)

    def _read_sealed(self, name: str) -> bytes:
        sealed = self.store.read(name)
        return signing.unseal(self.manifest.public, self.run_id, name, sealed)

    def delete(self) -> None:
        """Delete all objects, the manifest first: without it, there is no run."""
        names = [one.name for one in self.store.list("")]
        for name in sorted(names, key=lambda name: name != MANIFEST):
            self.store.delete(name)
        private_key_path(self.run_id).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        """Whether there is an object with this name."""
        return any(one.name == name for one in self.store.list(name))


def dump(name: str, value: Any) -> bytes:
    """Pickle an object of a run's folder.

    Raises
    ------
    UnpicklableError
        If it cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(value, protocol=5))
    except Exception as error:
        msg = (
            f"{name.removesuffix('.pkl')} cannot be pickled: {type(error).__name__}: "
            f"{message_of(error)}. Leave out objects that hold a lock, a file or a connection"
        )
        raise UnpicklableError(msg) from error


def _check_run_id(run_id: str) -> None:
    """Refuse an id that could name files elsewhere."""
    if not _RUN_ID.fullmatch(run_id):
        msg = f"invalid run id: {run_id!r:.100}"
        raise ValueError(msg)


def private_key_path(run_id: str) -> Path:
    """Return the path of a run's private key on the machine that made the run."""
    return paths.data_folder() / "keys" / run_id


def _private_key(manifest: Manifest) -> signing.SigningKey | None:
    path = private_key_path(manifest.run_id)
    if not path.exists():
        return None
    key = signing.SigningKey.from_file(path)
    return key if key.public == manifest.public else None
