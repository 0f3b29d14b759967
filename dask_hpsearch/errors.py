"""Every exception and warning that dask_hpsearch raises."""

from __future__ import annotations

import pickle


class HPSearchError(Exception):
    """Base of all errors raised by dask_hpsearch."""


class UnsupportedSearchError(HPSearchError, TypeError):
    """The object is no search, or no search that the chosen backend can run."""


class UnsupportedVersionError(HPSearchError, ImportError):
    """The installed scikit-learn is outside the range that is supported."""


class MissingExtraError(HPSearchError, ImportError):
    """A package that is needed for this is not installed; an extra of ours has it."""


class ClientClosedError(HPSearchError, RuntimeError):
    """The Dask client is closed, or has lost its scheduler."""


class NoWorkersError(HPSearchError, TimeoutError):
    """No Dask worker was there within the time-out."""


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
            f"{type(error).__name__}: {error}. Leave out what holds a lock, a file or a "
            "connection, or define __getstate__ to drop it"
        )


class UnreadableTaskError(HPSearchError, RuntimeError):
    """A worker could not load a part of the search that it was sent."""


class DataUnavailableError(HPSearchError, RuntimeError):
    """A worker did not get the data that a fit needs."""


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


class VersionSkewError(HPSearchError, RuntimeError):
    """A run's pickles were written by versions that this environment does not have."""


class VersionSkewWarning(UserWarning):
    """A run's pickles were written by versions that this environment does not have."""


class JournalMismatchError(HPSearchError, RuntimeError):
    """A run's folder holds results of other candidates than its own."""


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


class StorePermissionError(StoreError, PermissionError):
    """A store may not be read or written."""


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


class FitTimeoutError(FitEndedError, TimeoutError):
    """A fit ran longer than ``fit_timeout``."""


class SearchStopped(HPSearchError, RuntimeError):  # noqa: N818 (a stop is no fault)
    """The search was stopped before any candidate had finished."""


class SearchStoppedWarning(UserWarning):
    """The search was stopped; its results cover the candidates that had finished."""
