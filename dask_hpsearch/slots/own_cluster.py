"""Keeps fits from becoming clients of the cluster that runs them.

Such a fit waits for its tasks, which wait for a worker's thread, which waits for a fit: a
deadlock. The environment of a slot names the schedulers that its processes must not use;
a preload of Dask's clients reads it (`client_preload`).
"""

from __future__ import annotations

import ast
import os

_PRELOAD_VARIABLE = "DASK_DISTRIBUTED__CLIENT__PRELOAD"
_SCHEDULERS_VARIABLE = "DASK_HPSEARCH_OWN_SCHEDULERS"
_PRELOAD = "dask_hpsearch.slots.client_preload"


def refuse_clients_of(scheduler: str) -> None:
    """Let no Dask client of this process and its descendants use a scheduler.

    Parameters
    ----------
    scheduler : str
        Its id; "" if it is not known.
    """
    if not scheduler:
        return
    known = own_schedulers() | {scheduler}
    os.environ[_SCHEDULERS_VARIABLE] = " ".join(sorted(known))
    preloads = _preloads()
    if _PRELOAD not in preloads:
        os.environ[_PRELOAD_VARIABLE] = repr([*preloads, _PRELOAD])


def own_schedulers() -> set[str]:
    """Return the ids of the schedulers of the fits that this process belongs to."""
    return set(os.environ.get(_SCHEDULERS_VARIABLE, "").split())


def _preloads() -> list[str]:
    """Return the preloads that are set already, as Dask reads its environment."""
    text = os.environ.get(_PRELOAD_VARIABLE, "")
    try:
        value = ast.literal_eval(text) if text else []
    except (SyntaxError, ValueError):
        value = text
    return [value] if isinstance(value, str) else list(value)
