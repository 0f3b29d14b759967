"""Refuses a Dask client in a fit the scheduler that runs the fit.

Dask imports it in the first client of a process (``distributed.client.preload``), before
that connects. What a preload raises later is only logged: so the check is where a client
learns whom it has reached, whatever name or address it was given.
"""

from __future__ import annotations

from typing import Any

from distributed import Client

from dask_hpsearch.exceptions import OwnClusterError
from dask_hpsearch.slots.own_cluster import own_schedulers

_METHOD = "_update_scheduler_info"
_learn: Any = getattr(Client, _METHOD)


async def _learn_and_check(client: Client, *args: Any, **options: Any) -> None:
    await _learn(client, *args, **options)
    identity = client._scheduler_identity  # noqa: SLF001
    if identity.get("id") in own_schedulers():
        msg = (
            f"a fit cannot be a client of the Dask cluster that runs it ({identity['address']}): "
            "its tasks would wait for workers that wait for fits. Compute in the fit itself, "
            "or connect it to another cluster"
        )
        raise OwnClusterError(msg)


setattr(Client, _METHOD, _learn_and_check)
