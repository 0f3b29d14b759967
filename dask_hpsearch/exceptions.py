"""Every exception and warning that dask_hpsearch raises.

Each class has a section on the manual's page on troubleshooting, with causes and ways out;
``dask-hpsearch help NAME`` prints it.
"""

from __future__ import annotations

import pickle
from typing import Any

from dask_hpsearch.safe_text import message_of

__all__ = [
    "BucketNotFoundError",
    "CacheFullError",
    "CallbackWarning",
    "ChampionNotFoundError",
    "ClientClosedError",
    "CloudApiDisabledError",
    "CloudError",
    "CloudNotFoundError",
    "CloudQuotaError",
    "CloudRightsError",
    "CloudTimeoutError",
    "CloudUnreachableError",
    "ClusterAccessError",
    "ClusterError",
    "ClusterExistsError",
    "ClusterNameError",
    "ClusterNotFoundError",
    "ClusterUnreachableError",
    "CorruptObjectError",
    "DataChangedError",
    "DataFormatError",
    "DataTooLargeError",
    "DataUnavailableError",
    "FitDiskError",
    "FitEndedError",
    "FitKilledError",
    "FitMemoryError",
    "FitTimeoutError",
    "ForeignResourceError",
    "GKEMismatchError",
    "HPSearchError",
    "HPSearchWarning",
    "ImageBuildError",
    "JournalMismatchError",
    "KubernetesRightsError",
    "KubernetesUnreachableError",
    "MissingBindingsError",
    "MissingExtraError",
    "MissingModuleError",
    "NoWorkersError",
    "ObjectNotFoundError",
    "OperationFailedError",
    "OperatorMissingError",
    "OwnClusterError",
    "PodStartError",
    "PriceUnknownError",
    "PromotionError",
    "ResultUnreadableError",
    "RunCancelledError",
    "RunFailedError",
    "RunNotFoundError",
    "SearchStopped",
    "SearchStoppedWarning",
    "SecretFoundError",
    "SigningKeyError",
    "SpecError",
    "SpecFileError",
    "StoreError",
    "StoreFullError",
    "StoreNameError",
    "StorePermissionError",
    "TrackerError",
    "TrackerWarning",
    "UnpicklableError",
    "UnreadableTaskError",
    "UnsupportedSearchError",
    "UnsupportedVersionError",
    "UntrustedObjectError",
    "VersionSkewError",
    "VersionSkewWarning",
    "WorkersLackPackageError",
]


class HPSearchError(Exception):
    """Base of all errors raised by dask_hpsearch.

    Attributes
    ----------
    help_note : str
        The command that prints the error's section of the manual. It is one of the error's
        ``__notes__`` (PEP 678): tracebacks show it, and ``str(error)`` stays the message
        alone.
    """

    def __init__(self, *args: object, **options: Any) -> None:
        super().__init__(*args, **options)
        self.add_note(self.help_note)

    @property
    def help_note(self) -> str:
        """The note with the command that prints the error's section of the manual."""
        return _help_note(type(self))


class HPSearchWarning(UserWarning):
    """Base of all warnings raised by dask_hpsearch.

    Notes of a warning are not shown, so its text ends with the command that prints its
    section of the manual; ``args`` has the text alone.
    """

    def __str__(self) -> str:
        return f"{super().__str__()}\n{_help_note(type(self))}"


def _help_note(kind: type[BaseException]) -> str:
    public = next(one for one in kind.__mro__ if one.__name__ in __all__)
    return f"Help: dask-hpsearch help {public.__name__}"


class UnsupportedSearchError(HPSearchError, TypeError):
    """The object is no search, or no search that the chosen backend can run."""


class UnsupportedVersionError(HPSearchError, ImportError):
    """The installed scikit-learn is outside the range that is supported."""


class MissingExtraError(HPSearchError, ImportError):
    """A package that is needed for this is not installed; an extra of dask-hpsearch has it."""


class ClientClosedError(HPSearchError, RuntimeError):
    """The Dask client is closed, or has lost its scheduler."""


class NoWorkersError(HPSearchError, TimeoutError):
    """No Dask worker was there within the time-out.

    Attributes
    ----------
    lasts : bool
        Whether waiting longer will not help.
    """

    def __init__(self, message: str = "", *, lasts: bool = False) -> None:
        super().__init__(message)
        self.lasts = lasts


class WorkersLackPackageError(HPSearchError, RuntimeError):
    """The Dask workers cannot import dask_hpsearch, or another version of it."""


class MissingModuleError(HPSearchError, ModuleNotFoundError):
    """A module that the search refers to is not importable on a worker."""


class UnpicklableError(HPSearchError, pickle.PicklingError):
    """A part of the search cannot be sent to the workers."""

    @classmethod
    def of(cls, what: str, error: Exception) -> UnpicklableError:
        """Make the error of a part, by name, from what pickle says of it."""
        return cls(
            f"{what} cannot be sent to the workers: pickling it failed with "
            f"{type(error).__name__}: {message_of(error)}. Leave out objects that hold a lock, a file "
            "or a connection, or define a __getstate__ that drops them"
        )


class SecretFoundError(HPSearchError, ValueError):
    """Something secret would get to where others can read it."""


class UnreadableTaskError(HPSearchError, RuntimeError):
    """A worker could not load a part of the search that it was sent."""


class DataUnavailableError(HPSearchError, RuntimeError):
    """A worker did not get the data that a fit needs."""


class DataTooLargeError(HPSearchError, MemoryError):
    """Data does not fit into the memory of the machines that are to use it."""


class DataChangedError(HPSearchError, RuntimeError):
    """Data that a run refers to is not what it was when the run began."""


class DataFormatError(HPSearchError, ValueError):
    """Data that was referred to cannot be what the search needs."""


class StoreError(HPSearchError, OSError):
    """The folder that holds the search's data or its run cannot be used.

    Attributes
    ----------
    partial : object or None
        The search fitted on the candidates that had finished, if there were any.
    """

    partial: object = None


class RunNotFoundError(HPSearchError, LookupError):
    """There is no run at a URL."""


class RunFailedError(HPSearchError, RuntimeError):
    """The run ended with an error of its own."""


class RunCancelledError(HPSearchError, RuntimeError):
    """The run was cancelled: it has no result."""


class ResultUnreadableError(HPSearchError, RuntimeError):
    """A run's result refers to what this process does not have."""


class VersionSkewError(HPSearchError, RuntimeError):
    """A run's pickles were written by versions that this environment does not have."""


class VersionSkewWarning(HPSearchWarning):
    """A run's pickles were written by versions that this environment does not have."""


class JournalMismatchError(HPSearchError, RuntimeError):
    """A run's folder holds results of other candidates than its own."""


class ChampionNotFoundError(HPSearchError, LookupError):
    """There is no champion at a URL, or no such version of it."""


class PromotionError(HPSearchError, ValueError):
    """Champion and challenger cannot be compared; nothing was promoted."""


class StoreNameError(StoreError, ValueError):
    """A text is no store's URL, or no name of an object in a store."""


class ObjectNotFoundError(StoreError, FileNotFoundError):
    """A store has no object of this name."""


class BucketNotFoundError(StoreError, FileNotFoundError):
    """There is no bucket of this name."""


class CorruptObjectError(StoreError):
    """An object did not arrive as it was sent."""


class StoreFullError(StoreError):
    """There is no space left in a store."""


class CacheFullError(StoreFullError):
    """There is no room for data in a worker's cache."""


class StorePermissionError(StoreError, PermissionError):
    """A store may not be read or written."""


class SpecError(HPSearchError, ValueError):
    """A cluster's spec cannot be used.

    Attributes
    ----------
    problems : list of str
        Each problem of the spec, one for each field.
    """

    def __init__(self, name: str, problems: list[str]) -> None:
        self.name = name
        self.problems = problems
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{name}: invalid cluster spec:{lines}")

    def __reduce__(self) -> tuple[type[SpecError], tuple[str, list[str]]]:
        return type(self), (self.name, self.problems)


class SpecFileError(HPSearchError, OSError):
    """The file of a cluster's spec cannot be written, or exists."""


class ClusterError(HPSearchError, RuntimeError):
    """A cluster on Kubernetes cannot be made or used."""


class ClusterAccessError(ClusterError):
    """A cluster does not take this client, or is not the one that it should be."""


class ClusterUnreachableError(ClusterError, ConnectionError):
    """Nothing answers where a cluster should be."""


class ClusterExistsError(ClusterError):
    """There is a cluster of that name."""


class ClusterNameError(ClusterError, ValueError):
    """A cluster cannot have this name."""


class ClusterNotFoundError(ClusterError, LookupError):
    """There is no cluster of that name."""


class KubernetesUnreachableError(ClusterError, ConnectionError):
    """Kubernetes does not answer, or the kubeconfig says nothing of use."""


class KubernetesRightsError(ClusterError, PermissionError):
    """Kubernetes does not allow this user something that is needed."""


class OperatorMissingError(ClusterError):
    """The Dask operator is not installed, or does not act."""


class PodStartError(ClusterError):
    """A pod of the cluster cannot start.

    Attributes
    ----------
    lasts : bool
        Whether waiting longer will not help.
    """

    def __init__(self, message: str = "", *, lasts: bool = False) -> None:
        super().__init__(message)
        self.lasts = lasts


class ImageBuildError(HPSearchError, RuntimeError):
    """An image cannot be built."""


class CloudError(HPSearchError, RuntimeError):
    """Google Cloud does not do what it is asked to."""


class CloudRightsError(CloudError, PermissionError):
    """There are no credentials for Google Cloud, or they do not allow something."""


class MissingBindingsError(CloudRightsError):
    """The pods of a GKE cluster lack IAM bindings; the GKE cluster itself is there."""


class CloudApiDisabledError(CloudError):
    """The project has not enabled one of Google's APIs, or billing."""


class CloudQuotaError(CloudError):
    """The project has no quota, or Google no machines, for what is asked."""


class CloudUnreachableError(CloudError, ConnectionError):
    """A service of Google's does not answer, for longer than it is waited for."""


class CloudTimeoutError(CloudError, TimeoutError):
    """An operation at Google takes longer than it is waited for."""


class OperationFailedError(CloudError):
    """An operation at Google ended with an error."""


class CloudNotFoundError(CloudError, LookupError):
    """Google Cloud has no such thing."""


class ForeignResourceError(CloudError):
    """Something of that name is there, and dask_hpsearch has not made it."""


class GKEMismatchError(CloudError):
    """The GKE cluster that is there is not what the spec says."""


class PriceUnknownError(HPSearchError, LookupError):
    """There is no price for something, or no table of prices."""


class UntrustedObjectError(HPSearchError, RuntimeError):
    """An object of a run was not signed by the key that it should be signed by."""


class SigningKeyError(HPSearchError, RuntimeError):
    """The file of a signing key cannot be used, or others can read it."""


class FitEndedError(HPSearchError, RuntimeError):
    """A fit did not end by itself; base of the three ways that can happen."""


class FitKilledError(FitEndedError):
    """The process of a fit died."""


class FitMemoryError(FitEndedError):
    """A fit used more memory than its slot's share."""


class FitDiskError(FitEndedError):
    """A fit filled the disk of its worker."""


class FitTimeoutError(FitEndedError, TimeoutError):
    """A fit ran longer than ``fit_timeout``."""


class OwnClusterError(HPSearchError, ConnectionRefusedError):
    """A fit tried to become a client of the Dask cluster that runs it."""


class SearchStopped(HPSearchError, RuntimeError):  # noqa: N818 (a stop is no fault)
    """The search was stopped before any candidate had finished."""


class SearchStoppedWarning(HPSearchWarning):
    """The search was stopped; its results cover the candidates that had finished."""


class TrackerError(HPSearchError, RuntimeError):
    """A tracker, such as an MLflow server, cannot be used."""


class TrackerWarning(HPSearchWarning):
    """The search is not completely in its tracker."""


class CallbackWarning(HPSearchWarning):
    """The function that was passed as ``on_candidate`` has raised an error."""
