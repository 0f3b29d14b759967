"""Computes Dask collections among the data, once, before the fits.

Slots have no connection to a scheduler: a persisted collection is useless there, and a lazy
one would be computed in every fit. So it is computed on the cluster first, and then handled
like data in memory.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final

from dask.base import compute, is_dask_collection
from dask.core import flatten
from dask.utils import format_bytes
from distributed import Client, futures_of, wait
from distributed.system import MEMORY_LIMIT

from dask_hpsearch.exceptions import DataTooLargeError, DataUnavailableError
from dask_hpsearch.identity import IdentityMemo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_POLL_INTERVAL = 0.5
# Arguments of fit may have collections in lists and dicts, such as ``eval_set``; a list of
# more items is data itself.
_MOST_ITEMS = 100
_DEEPEST = 3
_UNKNOWN: Final = float("nan")


def computed(
    values: Mapping[str, Any],
    client: Client | None,
    *,
    still_waiting: Callable[[Client], None] = lambda _: None,
) -> dict[str, Any]:
    """Compute the Dask collections among values; others stay as they are.

    Shared parts of their graphs are computed once.

    Parameters
    ----------
    values : mapping
        By their names in errors. Lists, tuples and dicts of a few items may have
        collections in them.
    client : Client or None
        Computes them, except those that were persisted with another client. None: Dask's
        default.
    still_waiting : callable
        Called every half second with the computing client; it may raise.

    Returns
    -------
    dict
        NumPy arrays, pandas objects and the like, as ``compute()`` returns them.

    Raises
    ------
    DataTooLargeError
        If one does not fit into the memory of a worker, or of this process.
    DataUnavailableError
        If one was persisted with a closed client, or on a closed cluster.
    """
    found = dict(_found(values))
    if not found:
        return dict(values)
    results: dict[int, Any] = {}
    for owner, names in _by_client(found, client).items():
        collections = {name: found[name] for name in names}
        if owner is None:
            results |= _here(collections)
        else:
            results |= _on_cluster(collections, owner, still_waiting)
    return {name: _replaced(value, results) for name, value in values.items()}


class Collections:
    """The Dask collections of tasks, each computed once.

    Parameters
    ----------
    client : Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._values: IdentityMemo[Any] = IdentityMemo()
        self._local: IdentityMemo[Any] = IdentityMemo()

    def value(self, given: Any, *, what: str) -> Any:
        """Return the result of a collection; other values as they are.

        Parameters
        ----------
        given : object
        what : str
            Its name in errors.
        """
        known = self._values.get(given, default=given)
        if known is not given:
            return known
        result = computed({what: given}, self._client)[what]
        if result is not given:
            self._values.put(given, value=result)
        return result

    def local(self, given: Any) -> Any:
        """Return a collection of the same kind and chunks whose parts are computed.

        A function that expects a collection can compute with it without a scheduler.
        """
        local = self._local.get(given)
        if local is None:
            local = _with_parts(given, self._client)
            self._local.put(given, value=local)
            self._local.put(local, value=local)
        return local

    def clear(self) -> None:
        """Forget all results."""
        self._values.clear()
        self._local.clear()


def is_collection(value: Any) -> bool:
    """Whether a value is a Dask collection.

    Dask's own function includes the expressions of dataframes.
    """
    has_methods = hasattr(type(value), "__dask_postpersist__")
    return has_methods and bool(is_dask_collection(value))


def current_client() -> Client | None:
    """Return Dask's current client; None if there is none."""
    try:
        client = Client.current(allow_global=True)
    except ValueError:
        return None
    return client if client.status == "running" and not client.asynchronous else None


def _found(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Find collections, with a name for each."""
    seen: set[int] = set()
    for name, value in values.items():
        for path, one in _within(value, name, 0):
            if id(one) not in seen:
                seen.add(id(one))
                yield path, one


def _within(value: Any, name: str, depth: int) -> Iterable[tuple[str, Any]]:
    if is_collection(value):
        yield name, value
    elif type(value) in (list, tuple, dict) and len(value) <= _MOST_ITEMS:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items if depth < _DEEPEST else ():
            yield from _within(item, f"{name}[{key!r}]", depth + 1)


def _replaced(value: Any, results: dict[int, Any]) -> Any:
    """Replace collections by their results; copy containers that have some."""
    if id(value) in results:
        return results[id(value)]
    if type(value) not in (list, tuple, dict) or not any(_within(value, "", 0)):
        return value
    if isinstance(value, dict):
        return {key: _replaced(item, results) for key, item in value.items()}
    return type(value)(_replaced(item, results) for item in value)


# --- which client computes ------------------------------------------------------------


def _by_client(
    found: dict[str, Any], client: Client | None
) -> dict[Client | None, list[str]]:
    """Group collections by the client that computes them: that of their futures, if any."""
    groups: dict[Client | None, list[str]] = {}
    for name, one in found.items():
        owners = {future.client for future in futures_of(one)}
        owner = client if not owners or client in owners else owners.pop()
        if owner is not None and owner.status != "running":
            raise _gone(name)
        groups.setdefault(owner, []).append(name)
    return groups


def _gone(name: str) -> DataUnavailableError:
    return DataUnavailableError(
        f"{name} is a Dask collection that was persisted with a client that is closed, "
        "or whose cluster is closed: persist it again with the search's client, or pass it "
        "without persisting it"
    )


# --- computing ------------------------------------------------------------------------


def _here(collections: dict[str, Any]) -> dict[int, Any]:
    """Compute without a client."""
    for name, one in collections.items():
        _check_size(name, _known_bytes(one), limits={"this process": MEMORY_LIMIT})
    results: dict[int, Any] = {}
    for names in _of_one_kind(collections):
        group = [collections[name] for name in names]
        results |= zip(map(id, group), compute(*group, traverse=False), strict=True)
    return results


def _on_cluster(
    collections: dict[str, Any],
    client: Client,
    still_waiting: Callable[[Client], None],
) -> dict[int, Any]:
    """Compute on a client's workers; shared parts of graphs are computed once."""
    for name, one in collections.items():
        _check_size(name, _known_bytes(one), limits=_limits(client))
    persisted = _persisted(collections, client, still_waiting)
    results = {}
    for name, one in collections.items():
        # One after the other, so that the workers can release what has arrived.
        results[id(one)] = _gathered(persisted.pop(name), client, name)
    return results


def _persisted(
    collections: dict[str, Any],
    client: Client,
    still_waiting: Callable[[Client], None],
) -> dict[str, Any]:
    """Compute the parts, and check their sizes meanwhile."""
    persisted: dict[str, Any] = {}
    for names in _of_one_kind(collections):
        parts = client.persist([collections[name] for name in names])
        persisted |= zip(names, parts, strict=True)
    done = False
    while not done:
        try:
            with client.as_current():  # otherwise it requires a default client
                wait(futures_of(list(persisted.values())), timeout=_POLL_INTERVAL)
            done = True
        except TimeoutError:
            still_waiting(client)
        except CancelledError as error:
            raise _gone(" or ".join(collections)) from error
        limits = _limits(client)
        for name, one in persisted.items():
            _check_size(name, _counted_bytes(one, client), limits=limits)
    return persisted


def _of_one_kind(collections: dict[str, Any]) -> list[list[str]]:
    """Separate collections of expressions from those with graphs.

    Dask warns if it gets both at once, and optimizes neither.
    """
    kinds: dict[bool, list[str]] = {}
    for name, one in collections.items():
        kinds.setdefault(hasattr(one, "expr"), []).append(name)
    return list(kinds.values())


def _gathered(persisted: Any, client: Client, name: str) -> Any:
    """Fetch the parts, and combine them as ``compute()`` does.

    Not in a task: its worker would need memory for all of them.
    """
    finish, arguments = persisted.__dask_postcompute__()
    keys = persisted.__dask_keys__()
    return finish(_parts(persisted, keys, client, name), *arguments)


def _parts(persisted: Any, keys: list[Any], client: Client, name: str) -> Any:
    """Fetch parts, in the structure of their keys."""
    try:
        return client.get(persisted.__dask_graph__(), keys)
    except CancelledError as error:
        raise _gone(name) from error
    except Exception as error:
        error.add_note(f"raised on the Dask workers while computing {name}")
        raise


def _with_parts(collection: Any, client: Client) -> Any:
    name = "an argument"
    persisted = _persisted({name: collection}, client, lambda _: None)[name]
    keys = list(flatten(persisted.__dask_keys__()))
    parts = _parts(persisted, keys, client, name)
    rebuild, arguments = persisted.__dask_postpersist__()
    return rebuild(dict(zip(keys, parts, strict=True)), *arguments)


# --- sizes ----------------------------------------------------------------------------


def _known_bytes(collection: Any) -> float:
    """Return the size of an array, if it is known."""
    try:
        nbytes = getattr(collection, "nbytes", None)
    except NotImplementedError:  # of a dataframe
        return _UNKNOWN
    return float(nbytes) if isinstance(nbytes, int | float) else _UNKNOWN  # else lazy


def _counted_bytes(persisted: Any, client: Client) -> float:
    """Return the size of the computed parts."""
    # The scheduler does not know the others before it has taken in the graph.
    computed_parts = (one for one in futures_of(persisted) if one.status == "finished")
    keys = [future.key for future in computed_parts]
    sizes: dict[Any, int] = client.nbytes(keys=keys, summary=False)
    return float(sum(max(size, 0) for size in sizes.values()))


def _limits(client: Client) -> dict[str, float]:
    """Return the memory of the largest worker, if all have limits, and of this process."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] or float("inf") for worker in workers]
    return {
        "a worker": max(limits, default=float("inf")),
        "this process": float(MEMORY_LIMIT),
    }


def _check_size(name: str, nbytes: float, *, limits: dict[str, float]) -> None:
    owner, limit = min(limits.items(), key=lambda item: item[1])
    if nbytes > limit:  # unknown sizes are never larger
        msg = (
            f"{name} takes at least {format_bytes(int(nbytes))} in memory, and {owner} has "
            f"{format_bytes(int(limit))}: every fit needs the data of its split in memory. "
            "Take a sample of it, or a smaller dtype (float32), or workers with more memory"
        )
        raise DataTooLargeError(msg)
