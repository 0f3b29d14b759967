"""**Runs in slots**: explain failed connections on nodes that cannot reach the internet.

The nodes of a GKE cluster have no external address by default. Without Cloud NAT they reach
Google's APIs only, and a fit that downloads something fails with a time-out that names no
reason.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dask_hpsearch.messages import CLOUD_NAT_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_BEGINNING = "The nodes of this GKE cluster have no external address"
_LONGEST_CHAIN = 50
# Attributes in which libraries keep the original error, such as `urllib.error.URLError`.
_INNER_ERRORS = ("__cause__", "__context__", "reason", "os_error")
_NOT_CONNECTED = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    }
)
_TIMED_OUT = "timed out"  # the only text of a socket's time-out
# Names of error classes: builtin ones, and those of requests, urllib3 and httpx.
_CONNECTION_ERRORS = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "ConnectTimeoutError",
        "ConnectionError",
        "NewConnectionError",
        "TimeoutError",
    }
)
# The functions that connect, and their variables with the host.
_CONNECTING = {
    "asyncio.base_events": ("host",),
    "socket": ("host", "address"),
    "urllib3.util.connection": ("address",),
}
# Addresses of a Kubernetes cluster, its nodes and their network; all others are public.
# ``100.64.0.0/10`` and ``240.0.0.0/4`` can be addresses of pods.
_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "240.0.0.0/4",
            "::/127",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)
_INSIDE = (
    ".cluster.local",
    ".internal",
    ".local",
    ".localhost",
    ".svc",
    ".googleapis.com",  # reached without the internet, like the registry
    ".pkg.dev",
)


def explain(error: BaseException) -> None:
    """Add a note to an error that a failed connection to the internet has caused.

    The note says why the connection failed, and what to do. No note is added where nodes can
    reach the internet, or for a connection to a private address.

    Parameters
    ----------
    error : BaseException
        Its causes and the errors behind it are examined, too.
    """
    command = os.environ.get(CLOUD_NAT_VARIABLE)
    if not command:
        return
    note = (
        f"{_BEGINNING} (network.private_nodes), and reach the internet only through Cloud "
        f"NAT. Read the data from gs://..., or create a Cloud NAT with: {command}"
    )
    with contextlib.suppress(Exception):  # the errors' own code may run
        known = explanation_of(error)
        if not known and any(_is_of_the_internet(one) for one in _chain(error)):
            error.add_note(note)


def explanation_of(error: BaseException) -> str:
    """Return the note that `explain` has added to an error, here or in a slot; else ""."""
    notes = [str(one) for one in getattr(error, "__notes__", ())]
    return next((one for one in notes if one.startswith(_BEGINNING)), "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return an error, and all errors behind it."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting and len(seen) < _LONGEST_CHAIN:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [getattr(one, name, None) for name in _INNER_ERRORS]
        waiting += one.args
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def _is_of_the_internet(error: BaseException) -> bool:
    """Whether an error is that of a failed connection to a public, or an unknown, host."""
    host = _host(error)
    if host is not None and not _is_public(host):
        return False
    if isinstance(error, socket.gaierror):
        return True
    if isinstance(error, OSError) and error.errno in _NOT_CONNECTED:
        return True
    if isinstance(error, TimeoutError) and str(error) == _TIMED_OUT:
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    return host is not None and not names.isdisjoint(_CONNECTION_ERRORS)


def _host(error: BaseException) -> str | None:
    """Return the host that could not be reached; None if it is unknown."""
    url = getattr(getattr(error, "request", None), "url", None)  # of requests, httpx
    if url is not None:
        return urlsplit(str(url)).hostname
    found = None
    for frame in _frames(error):
        names = _CONNECTING.get(frame.f_globals.get("__name__", ""), ())
        for name in names:
            found = _host_in(frame.f_locals.get(name)) or found
    return found


def _frames(error: BaseException) -> Iterator[FrameType]:
    """Return the frames of an error's traceback, from the outside in."""
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _host_in(value: Any) -> str | None:
    """Return the host of an address, which may be a pair with a port."""
    if isinstance(value, tuple) and value:
        value = value[0]
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value if isinstance(value, str) else None


def _is_public(host: str) -> bool:
    """Whether a host is on the internet, as far as its name or address shows."""
    name = host.strip("[]").partition("%")[0].rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return "." in name and not name.endswith(_INSIDE)
    return not any(address in network for network in _PRIVATE)
