"""Questions to Google's REST interfaces, for which a client library each would be much."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import CloudUnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_S = 20.0
_TRIES = 4
_BACKOFF_S = 0.3
_AGAIN = (500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said.

    Attributes
    ----------
    status : int
        Of HTTP.
    body : dict
        The JSON that came.
    """

    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether it is what was asked for."""
        return self.status == HTTPStatus.OK

    @property
    def missing(self) -> bool:
        """Whether there is no such thing."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def disabled_api(self) -> str:
        """The API that must be enabled before this can be answered; else nothing."""
        for one in self.body.get("error", {}).get("details", []):
            if one.get("reason") == "SERVICE_DISABLED":
                return str(one.get("metadata", {}).get("service", ""))
        return ""

    @property
    def reason(self) -> str:
        """Why it was refused, in Google's words and codes."""
        error = self.body.get("error", {})
        details = error.get("details", [])
        codes = " ".join(str(one.get("reason", "")) for one in details)
        return f"{self.status} {error.get('message', '')} {codes}".strip()


@dataclass(frozen=True, slots=True)
class GoogleRest:
    """Google's services, asked in one user's name.

    Attributes
    ----------
    session : AuthorizedSession
    addresses : mapping
        Where services are that are not at their usual address, as ``{"compute":
        "https://compute-xyz.p.googleapis.com"}``.
    """

    session: Any = field(repr=False)
    addresses: Mapping[str, str] = field(default_factory=dict)

    def get(self, service: str, path: str, **query: Any) -> Answer:
        """Ask a service something.

        Parameters
        ----------
        service : str
            As ``"compute"``.
        path : str
            From the first slash on.
        **query
            Parameters of the URL.

        Raises
        ------
        CloudUnreachableError
            If it does not answer.
        GoogleAuthError
            If there are credentials, but none that Google takes.
        """
        return self._ask("GET", service, path, params=query)

    def post(self, service: str, path: str, body: Mapping[str, Any]) -> Answer:
        """Ask a service something that takes more words; as `get`."""
        return self._ask("POST", service, path, json=body)

    def _ask(self, method: str, service: str, path: str, **more: Any) -> Answer:
        import requests

        base = self.addresses.get(service, f"https://{service}.googleapis.com")
        url = base.rstrip("/") + path
        try:
            answer = self.session.request(method, url, timeout=_TIMEOUT_S, **more)
        except requests.RequestException as error:
            msg = (
                f"{url} does not answer ({type(error).__name__}): look at the network, "
                "and at https://status.cloud.google.com"
            )
            raise CloudUnreachableError(msg) from error
        try:
            body = answer.json()
        except ValueError:
            body = {}
        return Answer(answer.status_code, body if isinstance(body, dict) else {})


def connect(addresses: Mapping[str, str] | None = None) -> GoogleRest:
    """Connect with Application Default Credentials; nothing is asked yet.

    Parameters
    ----------
    addresses : mapping, optional
        As of `GoogleRest`.

    Raises
    ------
    DefaultCredentialsError
        If there are none.
    """
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return GoogleRest(
        with_retries(AuthorizedSession(credentials)), dict(addresses or {})
    )


def with_retries(session: Any) -> Any:
    """Let a session repeat what was not answered; all that is asked changes nothing."""
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=_TRIES,
        backoff_factor=_BACKOFF_S,
        status_forcelist=_AGAIN,
        allowed_methods=None,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session
