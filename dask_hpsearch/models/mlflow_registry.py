"""Champions in MLflow's registry: versions of a registered model, by the alias "champion".

A version has a run of the experiment "champions", with two kinds of artifacts. ``model/`` is what
MLflow's own tools load, and is not verified. ``dask_hpsearch/`` has the signed objects, from
which `load_champion` loads.

MLflow sets an alias whatever it was before. So the alias is compared right before it is set: of two
promoters within these milliseconds, the second one wins, unseen by the first. A folder or
a bucket has no such gap.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import (
    ChampionNotFoundError,
    StoreError,
    StoreNameError,
    UntrustedObjectError,
)
from dask_hpsearch.extras import map_import_errors
from dask_hpsearch.models.signed_version import read_pointer, signed_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.models.champions import NewVersion
    from dask_hpsearch.models.signed_version import SignedPointer, Trust

ALIAS = "champion"
_EXPERIMENT = "champions"
_SIGNED, _POINTER, _FLAVOR = "dask_hpsearch", "champion.json", "model"
_REPLACED = "dask-hpsearch.replaced"
_RUN = "mlflow-runs/"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True, slots=True)
class RegisteredChampions:
    """The champions of a registered model.

    Attributes
    ----------
    name : str
    client : mlflow.MlflowClient
    """

    name: str
    client: Any

    @classmethod
    def open(cls, name: str) -> RegisteredChampions:
        """Open a registered model of the tracking server that MLflow is set to.

        Raises
        ------
        StoreNameError
            If the name is not a name.
        MissingExtraError
            If MLflow is not installed.
        """
        if not name or any(sign in name for sign in "/:@"):
            msg = (
                "a model of MLflow's registry must be models:/NAME, without a version or an "
                f"alias, got 'models:/{name}'"
            )
            raise StoreNameError(msg)
        with map_import_errors("models:/"):
            from mlflow import MlflowClient
        return cls(name, MlflowClient())

    @property
    def url(self) -> str:
        """The model's URI."""
        return f"models:/{self.name}"

    def current(self) -> int | None:
        """Return the version that has the alias."""
        with _map_errors(self.url):
            try:
                found = self.client.get_registered_model(self.name)
            except Exception as error:
                if _is_absent(error):
                    return None
                raise
        version = found.aliases.get(ALIAS)
        return None if version is None else int(version)

    def versions(self) -> list[int]:
        """Return the versions that were promoted."""
        with _map_errors(self.url):
            found = self.client.search_model_versions(f"name='{self.name}'")
        return sorted(int(one.version) for one in found if _REPLACED in one.tags)

    def pointer(self, version: int, trust: Trust) -> SignedPointer:
        """Read and verify the pointer of a version."""
        with _map_errors(self.url):
            try:
                found = self.client.get_model_version(self.name, str(version))
            except Exception as error:
                if not _is_absent(error):
                    raise
                msg = (
                    f"there is no version {version} of {self.url} in MLflow's registry"
                )
                raise ChampionNotFoundError(msg) from error
            content = self._artifact(found.run_id, _POINTER) if found.run_id else None
        if content is None:
            msg = (
                f"version {version} of {self.url} was not promoted by dask-hpsearch, and has no "
                "signature. If you trust it, load it with mlflow.sklearn.load_model"
            )
            raise UntrustedObjectError(msg)
        pointer = read_pointer(content, name=self.name, url=self.url, trust=trust)
        pointer.check_folder(f"{_RUN}{found.run_id}")
        return pointer

    def read(self, pointer: SignedPointer, name: str) -> bytes:
        """Read an object of a version."""
        run_id = pointer.pointer.folder.removeprefix(_RUN)
        with _map_errors(self.url):
            content = self._artifact(run_id, name)
        if content is None:
            msg = f"{name} of {self.url} is missing in MLflow's run {run_id}"
            raise UntrustedObjectError(msg)
        return content

    def replace(self, champion: int | None, new: NewVersion) -> int | None:
        """Register a version, then move the alias to it."""
        with _map_errors(self.url), tempfile.TemporaryDirectory() as folder:
            run = self.client.create_run(
                self._experiment(), run_name=f"promotion of {self.name}"
            )
            run_id = run.info.run_id
            _write(Path(folder), new, f"{_RUN}{run_id}")
            self.client.log_artifacts(run_id, folder)
            for name, score in new.card.scores.items():
                if score is not None:
                    self.client.log_metric(run_id, f"{name}_score", score)
            self.client.set_terminated(run_id)
            return self._registered(run, champion)

    def _registered(self, run: Any, champion: int | None) -> int | None:
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):  # it exists
            self.client.create_registered_model(self.name)
        run_id = run.info.run_id
        made = self.client.create_model_version(
            self.name, f"{run.info.artifact_uri}/{_FLAVOR}", run_id
        )
        if self.current() != champion:
            self.client.delete_model_version(self.name, made.version)
            self.client.delete_run(run_id)
            return None
        self.client.set_registered_model_alias(self.name, ALIAS, made.version)
        self.client.set_model_version_tag(
            self.name, made.version, _REPLACED, str(champion or "none")
        )
        return int(made.version)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):  # it exists
            return str(self.client.create_experiment(_EXPERIMENT))
        return str(self.client.get_experiment_by_name(_EXPERIMENT).experiment_id)

    def _artifact(self, run_id: str, name: str) -> bytes | None:
        """Read an artifact of a run; None if there is none."""
        listed = self.client.list_artifacts(run_id, _SIGNED)
        if f"{_SIGNED}/{name}" not in {one.path for one in listed}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = self.client.download_artifacts(run_id, f"{_SIGNED}/{name}", folder)
            return Path(path).read_bytes()


def _write(folder: Path, new: NewVersion, name: str) -> None:
    """Write a version's artifacts."""
    import mlflow.sklearn

    objects, pointer = signed_objects(new.model, new.card, folder=name)
    signed = folder / _SIGNED
    signed.mkdir()
    for path, content in (objects | {_POINTER: pointer}).items():
        (signed / path).write_bytes(content)
    environment = new.card.environment
    mlflow.sklearn.save_model(
        new.fitted,
        str(folder / _FLAVOR),
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
        pip_requirements=[
            f"{package}=={version}"
            for package, version in environment.items()
            if package not in {"python", "platform", "dask-hpsearch", "dask"}
        ],
    )


def _is_absent(error: Exception) -> bool:
    return getattr(error, "error_code", None) in _ABSENT


@contextlib.contextmanager
def _map_errors(url: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        msg = (
            f"MLflow's registry cannot be used for {url}: {error.message}. Check the server, and "
            "MLFLOW_TRACKING_URI or mlflow.set_tracking_uri"
        )
        raise StoreError(msg) from error
