"""Changes labels of GKE clusters so that nobody's change is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api_core import exceptions

from dask_hpsearch.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dask_hpsearch.gcp.changes import Changes
    from dask_hpsearch.gcp.looking import Looker

_TRIES = 3


def relabel(
    looker: Looker,
    changes: Changes,
    path: str,
    change: Callable[[Mapping[str, str]], dict[str, str]],
) -> None:
    """Change the labels of a cluster of ours; look again if somebody else does meanwhile.

    Parameters
    ----------
    looker : Looker
    changes : Changes
    path : str
    change : callable
        Returns the new labels for those that are there.

    Raises
    ------
    CloudError
        If there is no such cluster of ours, or Google refuses.
    """
    for remaining in reversed(range(_TRIES)):
        found = looker.mine(path)
        before = dict(found.resource_labels)
        labels = change(before)
        if labels == before:
            return
        try:
            changes.set_labels(path, labels, found.label_fingerprint)
        except CloudError as error:
            changed = isinstance(error.__cause__, exceptions.FailedPrecondition)
            if not (changed and remaining):
                raise
        else:
            return
