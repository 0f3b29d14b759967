"""The joblib backend "dask_hpsearch": joblib's tasks become the engine's.

Users activate `DaskHPSearchBackend`. It reports how many slots there are, and gives every
``Parallel`` object its own `Session`, by joblib's fallback mechanism. `EvaluationBackend`
does the same for the evaluation of one search only.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from distributed import get_client
from joblib.parallel import (
    FallbackToBackend,
    LokyBackend,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
)

from dask_hpsearch.data import DataStore
from dask_hpsearch.engine.client import check_client
from dask_hpsearch.engine.connect import connect
from dask_hpsearch.engine.engine import Engine
from dask_hpsearch.exceptions import ClientClosedError
from dask_hpsearch.joblib_backend.session import Session, slots_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client
    from distributed.deploy.cluster import Cluster


class DaskHPSearchBackend(ParallelBackendBase):  # type: ignore[misc]
    """joblib backend that runs tasks in the slots of a Dask client's workers.

    Activate it with ``joblib.parallel_config("dask_hpsearch", client=client)``.

    Parameters
    ----------
    client : distributed.Client, str or Dask cluster, optional
        A client, the address of a scheduler, or a cluster. Default: the current client.
    worker_timeout : float
        Seconds to wait for a first worker.

    Raises
    ------
    ClientClosedError
        If there is no client, or it is closed.
    TypeError
        If ``client`` is not a client, an address or a cluster.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        client: Client | Cluster | str | None = None,
        *,
        worker_timeout: float = 60.0,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level, inner_max_num_threads, **options)
        self._client = _current_client() if client is None else connect(client)
        self._worker_timeout = worker_timeout
        self._engine: Engine | None = None
        check_client(self._client)
        if client is not None and self._client is not client:
            weakref.finalize(self, self._client.close)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks run at once."""
        if n_jobs == 1:
            return 1
        engine = self._running_engine()
        engine.wait_for_slots()
        return slots_for(n_jobs, engine.slots)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_options: Any) -> int:
        """Give the ``Parallel`` object its own session."""
        del parallel
        level = self.nesting_level or 0
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=level))
        session = Session(self._running_engine(), nesting_level=level)
        raise FallbackToBackend(session)

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Never called: sessions take the tasks."""
        raise AssertionError(func, callback)

    def _running_engine(self) -> Engine:
        if self._engine is None:
            data_store = DataStore()
            self._engine = Engine(
                self._client, data_store, worker_timeout_s=self._worker_timeout
            )
            weakref.finalize(self, _close, self._engine, data_store)
        return self._engine


class EvaluationBackend(ParallelBackendBase):  # type: ignore[misc]
    """Serves the evaluation of one search; other parallel code runs as without it.

    The first ``Parallel`` object that is set up once the search is ready is the search's
    own. Others (of a ``fit`` around the search, of a splitter, of the refit) run in this
    process.

    Parameters
    ----------
    session : Session
    ready : callable, optional
        Whether the search is about to evaluate; default: always.
    """

    default_n_jobs = 1

    def __init__(
        self, session: Session, *, ready: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(nesting_level=0)
        self._session: Session | None = session
        self._ready = ready

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return what a fit in this process may use: its cores."""
        return int(LokyBackend(nesting_level=0).effective_n_jobs(n_jobs))

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        **_options: Any,
    ) -> int:
        """Give the search its session, any other ``Parallel`` object a local backend."""
        del n_jobs, parallel
        session = self._session
        if session is not None and self._ready():
            self._session = None
            raise FallbackToBackend(session)
        threads = prefer == "threads" or require == "sharedmem"
        local = ThreadingBackend if threads else LokyBackend
        raise FallbackToBackend(local(nesting_level=0))

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Never called: the session takes the tasks."""
        raise AssertionError(func, callback)


def _current_client() -> Client:
    try:
        return get_client()
    except ValueError as error:
        msg = (
            "there is no Dask client: connect one (client = Client(...)), or start "
            "workers here with dask_hpsearch.local_cluster()"
        )
        raise ClientClosedError(msg) from error


def _close(engine: Engine, data_store: DataStore) -> None:
    engine.close()
    data_store.close()
