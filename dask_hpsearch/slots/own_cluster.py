"""Keeps fits from becoming clients of the cluster that runs them.

The tasks that such a fit submits wait for the threads of workers, and these wait for fits:
with enough of them the search stands still for ever. Slots say by their environment whose
client nothing in them may be; Dask's clients read it by a preload (`client_preload`).
"""

from __future__ import annotations

import ast
import os

_PRELOAD_VARIABLE = "DASK_DISTRIBUTED__CLIENT__PRELOAD"
_SCHEDULERS_VARIABLE = "DASK_HPSEARCH_OWN_SCHEDULERS"
_PRELOAD = "dask_hpsearch.slots.client_preload"


def refuse_clients_of(scheduler: str) -> None:
    """Let no Dask client of this process, or of what it starts, use a scheduler.

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
    """Return the ids of the schedulers that run what this process is part of."""
    return set(os.environ.get(_SCHEDULERS_VARIABLE, "").split())


def _preloads() -> list[str]:
    """Read what clients load already, as Dask reads its environment."""
    text = os.environ.get(_PRELOAD_VARIABLE, "")
    try:
        value = ast.literal_eval(text) if text else []
    except (SyntaxError, ValueError):
        value = text
    return [value] if isinstance(value, str) else list(value)
