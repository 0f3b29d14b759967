"""The folder of one run: manifest, search, calls, journal, requests, results.

manifest.json                 what the run is; signed by the user's key
search.pkl                    the search as it was handed in, sealed by the run's key
calls/00000-0.pkl             candidates and splits of a call (and generation), sealed
journal/, snapshots/          events, sealed
requests/stop-….json          what somebody asks of the driver
result-0.pkl                  the fitted search, sealed; created once a generation
result-without-estimator-0.pkl
logs/…                        what the drivers wrote, and the pods of their cluster
modules/…                     modules of the user's own, sealed, for a driver elsewhere
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
    """Versions that must agree between who writes a run's pickles and who reads them."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__.split(".")[0],
    }


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run is.

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
        How it is driven: ``fit_timeout_s`` and the like.
    traits : dict
        What readers need to know of the search: ``refit``, ``extendable``.
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
    """Make the name of a new run: sortable by time, unique."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"


class RunFolder:
    """One run's objects.

    Parameters
    ----------
    store : Store
        The run's own folder.
    manifest : Manifest
    key : trust.SigningKey or None
        The run's key; None: read only.
    """

    def __init__(
        self, store: Store, manifest: Manifest, key: signing.SigningKey | None
    ) -> None:
        self.store = store
        self.manifest = manifest
        self.key = key

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.manifest.run_id

    @classmethod
    def create(cls, parent: Store, manifest: dict[str, Any], search: Any) -> RunFolder:
        """Create a run below a store; the manifest comes last: before, there is no run."""
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
        folder.create_pickle(SEARCH, search)
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
        """Open a run; its pickles are believed only if this user made it.

        Parameters
        ----------
        store : Store
        trusted : bool
            Believe whoever made it.
        maker : str, optional
            Public key of the user who must have made it; default: this user's.
        key : trust.SigningKey, optional
            The run's private key; default: the one on this machine, if it is here.

        Raises
        ------
        RunNotFoundError
            If there is no run.
        UntrustedObjectError
            If someone else made it, or its manifest was altered.
        """
        try:
            signed = json.loads(store.read(MANIFEST))
            body, public = signed["body"], signed["public"]
            signature = signed["signature"]
            manifest = Manifest(**json.loads(body))
            _check_run_id(manifest.run_id)
        except ObjectNotFoundError as error:
            msg = (
                f"no run at {store.url!r}: check the URL, or list the runs under a store "
                "with SearchRun.list(store)"
            )
            raise RunNotFoundError(msg) from error
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{MANIFEST} at {store.url!r} is no manifest of a run: {error}"
            raise UntrustedObjectError(msg) from error
        signing.verify(public, manifest.run_id, MANIFEST, body.encode(), signature)
        if not trusted and public != (maker or signing.user_key().public):
            msg = (
                f"the run at {store.url!r} was made with another user's key "
                f"({public[:16]}…): its pickles could run anything. If you know who made "
                "it, pass trust=True"
            )
            raise UntrustedObjectError(msg)
        return cls(store, manifest, key or _private_key(manifest))

    def check_versions(self) -> None:
        """Refuse to unpickle what other versions wrote.

        Raises
        ------
        VersionSkewError
            Names both.
        """
        skew = self.version_skew()
        if skew:
            raise VersionSkewError(skew)

    def version_skew(self) -> str | None:
        """Tell in one sentence which versions wrote the run and which are here."""
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
                "user who made the run, there, can continue it"
            )
            raise UntrustedObjectError(msg)
        return self.key

    def create_pickle(self, name: str, value: Any) -> bool:
        """Pickle and seal an object into the folder; False if it is there already."""
        key = self.signing_key()
        try:
            content = bytes(cloudpickle.dumps(value, protocol=5))
        except Exception as error:
            msg = (
                f"{name.removesuffix('.pkl')} cannot be pickled: {type(error).__name__}: "
                f"{message_of(error)}. Leave out what holds a lock, a file or a connection"
            )
            raise UnpicklableError(msg) from error
        sealed = signing.seal(key, self.run_id, name, content)
        return self.store.create(name, sealed)

    def load_pickle(self, name: str) -> Any:
        """Check an object's seal and this environment's versions, then unpickle it."""
        sealed = self.store.read(name)
        content = signing.unseal(self.manifest.public, self.run_id, name, sealed)
        self.check_versions()
        return main_names.loads(content)  # the seal is the run's

    def delete(self) -> None:
        """Delete all objects, the manifest first: after it, there is no run."""
        names = [one.name for one in self.store.list("")]
        for name in sorted(names, key=lambda name: name != MANIFEST):
            self.store.delete(name)
        private_key_path(self.run_id).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        """Whether there is an object of this very name."""
        return any(one.name == name for one in self.store.list(name))


def _check_run_id(run_id: str) -> None:
    """Refuse what could lead to files elsewhere."""
    if not _RUN_ID.fullmatch(run_id):
        msg = f"{run_id!r:.100} is no run's id"
        raise ValueError(msg)


def private_key_path(run_id: str) -> Path:
    """Where a run's private key lies on the machine that made it."""
    return paths.data_folder() / "keys" / run_id


def _private_key(manifest: Manifest) -> signing.SigningKey | None:
    path = private_key_path(manifest.run_id)
    if not path.exists():
        return None
    key = signing.SigningKey.from_file(path)
    return key if key.public == manifest.public else None
