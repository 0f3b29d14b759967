"""Who may use the dashboard: one user's browser on this machine, and no other page in it.

The server listens on loopback. A random token in the URL is exchanged for a cookie. A request
is refused if its Host is not the server's own (a name that an attacker lets resolve to
loopback), or if another page sends it (its Origin). Actions need a second token, which only
pages of the dashboard have.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from typing import Any

from tornado.web import HTTPError, RequestHandler

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ACTION_HEADER = "X-Dask-HPSearch-Token"


def _random() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Secrets:
    """The random texts of one server.

    Attributes
    ----------
    token : str
        In the URL that the server prints.
    session : str
        In the cookie.
    action : str
        In the header of requests that change something.
    """

    token: str = field(default_factory=_random)
    session: str = field(default_factory=_random)
    action: str = field(default_factory=_random)


def check_loopback(address: str) -> str:
    """Return an IP address of this machine alone.

    Raises
    ------
    ValueError
        If other machines could reach it.
    """
    text = "127.0.0.1" if address == "localhost" else address
    try:
        loopback = ipaddress.ip_address(text).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        msg = (
            f"address must be of this machine alone, such as 127.0.0.1, got {address!r}: "
            "to look from another machine, forward the port through ssh (ssh -L)"
        )
        raise ValueError(msg)
    return text


class GuardedHandler(RequestHandler):
    """Refuses whatever is not a request of the user's own pages."""

    def initialize(self, secrets: Secrets, port: int, **more: Any) -> None:
        """Take what the server gives to each request."""
        self.secrets = secrets
        self.port = port
        self.__dict__.update(more)

    def set_default_headers(self) -> None:
        """Forbid everything that the pages do not need."""
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def prepare(self) -> None:
        """Check Host, Origin and cookie; of a POST, its token too."""
        self._check_host()
        self._check_origin()
        if not self._has_cookie() and not self.may_enter():
            reason = (
                "open the address that dask-hpsearch dashboard printed, with its token"
            )
            raise HTTPError(403, reason, reason="Forbidden")
        if self.request.method not in {"GET", "HEAD"}:
            self._check_action()

    def may_enter(self) -> bool:
        """Whether a request without the cookie is let in."""
        return False

    @property
    def cookie_name(self) -> str:
        """The cookie of this server: servers on other ports have others."""
        return f"dask-hpsearch-{self.port}"

    def _check_host(self) -> None:
        names = ("127.0.0.1", "localhost", "[::1]")
        if self.request.headers.get("Host") not in {f"{n}:{self.port}" for n in names}:
            raise HTTPError(403, "wrong Host", reason="Forbidden")

    def _check_origin(self) -> None:
        headers = self.request.headers
        origin = headers.get("Origin")
        own = f"http://{headers.get('Host')}"
        if origin is not None and origin != own:
            raise HTTPError(403, "wrong Origin", reason="Forbidden")
        site = headers.get("Sec-Fetch-Site", "none")
        navigates = headers.get("Sec-Fetch-Mode") == "navigate"
        if site not in {"none", "same-origin"} and not navigates:
            raise HTTPError(403, "request of another site", reason="Forbidden")

    def _check_action(self) -> None:
        given = self.request.headers.get(ACTION_HEADER, "")
        has_origin = self.request.headers.get("Origin") is not None
        if not has_origin or not _equal(given, self.secrets.action):
            raise HTTPError(403, "not from a page of the dashboard", reason="Forbidden")

    def _has_cookie(self) -> bool:
        return _equal(self.get_cookie(self.cookie_name) or "", self.secrets.session)

    def has_token(self) -> bool:
        """Whether the URL has the server's token."""
        return _equal(self.get_query_argument("token", ""), self.secrets.token)

    def check_xsrf_cookie(self) -> None:
        """`prepare` has checked more than this."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with a sentence."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        text = getattr(error, "log_message", None) or self._reason
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}: {text}\n")


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
