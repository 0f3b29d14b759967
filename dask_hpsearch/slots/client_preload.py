"""Stops a Dask client in a fit from connecting to the scheduler that runs the fit.

Dask imports this module in the first client of a process (``distributed.client.preload``),
before it connects. Dask only logs an error of a preload, so the check is made where a
client receives the identity of the scheduler, by whichever address it was reached.
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
