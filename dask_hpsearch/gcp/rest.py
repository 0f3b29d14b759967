"""Requests to Google's REST APIs that are too few for a client library each."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import CloudUnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT = 20.0
_MAX_RETRIES = 4
_BACKOFF = 0.3
_RETRY_STATUS = (500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Response:
    """A service's response.

    Attributes
    ----------
    status : int
        HTTP status code.
    body : dict
        The parsed JSON.
    """

    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status == HTTPStatus.OK

    @property
    def missing(self) -> bool:
        """Whether there is no such resource."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def disabled_api(self) -> str:
        """The API that must be enabled for this request; empty if none."""
        for one in self.body.get("error", {}).get("details", []):
            if one.get("reason") == "SERVICE_DISABLED":
                return str(one.get("metadata", {}).get("service", ""))
        return ""

    @property
    def reason(self) -> str:
        """Google's message and codes of a refusal."""
        error = self.body.get("error", {})
        details = error.get("details", [])
        codes = " ".join(str(one.get("reason", "")) for one in details)
        return f"{self.status} {error.get('message', '')} {codes}".strip()


@dataclass(frozen=True, slots=True)
class GoogleRest:
    """Google's REST APIs, with one user's credentials.

    Attributes
    ----------
    session : AuthorizedSession
    addresses : mapping
        Endpoints of services that differ from the public ones, as ``{"compute":
        "https://compute-xyz.p.googleapis.com"}``.
    """

    session: Any = field(repr=False)
    addresses: Mapping[str, str] = field(default_factory=dict)

    def get(self, service: str, path: str, **query: Any) -> Response:
        """Send a GET request to a service.

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
            If it does not respond.
        GoogleAuthError
            If Google does not accept the credentials.
        """
        return self._request("GET", service, path, params=query)

    def post(self, service: str, path: str, body: Mapping[str, Any]) -> Response:
        """Send a POST request with a JSON body to a service; as `get`."""
        return self._request("POST", service, path, json=body)

    def _request(
        self, method: str, service: str, path: str, **options: Any
    ) -> Response:
        import requests

        base = self.addresses.get(service, f"https://{service}.googleapis.com")
        url = base.rstrip("/") + path
        try:
            response = self.session.request(method, url, timeout=_TIMEOUT, **options)
        except requests.RequestException as error:
            msg = (
                f"{url} does not respond ({type(error).__name__}): check the network and "
                "https://status.cloud.google.com"
            )
            raise CloudUnreachableError(msg) from error
        try:
            body = response.json()
        except ValueError:
            body = {}
        return Response(response.status_code, body if isinstance(body, dict) else {})


def connect(addresses: Mapping[str, str] | None = None) -> GoogleRest:
    """Prepare requests with Application Default Credentials; none is sent yet.

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
    """Let a session retry failed requests; all of them are read-only."""
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=_MAX_RETRIES,
        backoff_factor=_BACKOFF,
        status_forcelist=_RETRY_STATUS,
        allowed_methods=None,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session
