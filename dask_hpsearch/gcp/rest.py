"""Requests to Google's REST APIs that are too few for a client library each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import CloudUnreachableError
from dask_hpsearch.gcp.auth import credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        return self.request("GET", service, path, params=query)

    def post(self, service: str, path: str, body: Mapping[str, Any]) -> Response:
        """Send a POST request with a JSON body to a service; as `get`."""
        return self.request("POST", service, path, json=body)

    def put(self, service: str, path: str, body: Mapping[str, Any]) -> Response:
        """Send a PUT request with a JSON body to a service; as `get`."""
        return self.request("PUT", service, path, json=body)

    def patch(
        self, service: str, path: str, body: Mapping[str, Any], **query: Any
    ) -> Response:
        """Send a PATCH request with a JSON body to a service; as `get`."""
        return self.request("PATCH", service, path, json=body, params=query)

    def request(self, method: str, service: str, path: str, **options: Any) -> Response:
        """Send a request to a service; as `get`."""
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


@dataclass(frozen=True, slots=True)
class CachedRest(GoogleRest):
    """Google's REST APIs for many checks of one moment: each request is sent once.

    Attributes
    ----------
    responses : dict
        By request.
    """

    responses: dict[str, Response] = field(default_factory=dict, repr=False)

    def request(self, method: str, service: str, path: str, **options: Any) -> Response:
        """Send a request to a service, unless it was sent before; as `get`."""
        key = json.dumps([method, service, path, options], sort_keys=True)
        if key not in self.responses:
            response = GoogleRest.request(self, method, service, path, **options)
            self.responses[key] = response
        return self.responses[key]


def connect(
    addresses: Mapping[str, str] | None = None, *, project: str | None = None
) -> GoogleRest:
    """Prepare requests with Application Default Credentials; none is sent yet.

    Parameters
    ----------
    addresses : mapping, optional
        As of `GoogleRest`.
    project : str, optional
        The quota project of a user's credentials, as for
        `dask_hpsearch.gcp.auth.credentials`.

    Raises
    ------
    CloudRightsError
        If there are no credentials.
    """
    from google.auth.transport.requests import AuthorizedSession

    session = AuthorizedSession(credentials(project))
    return GoogleRest(with_retries(session), dict(addresses or {}))


def with_retries(session: Any) -> Any:
    """Let a session retry failed requests.

    All of them may be repeated: they read, or replace a policy of a certain etag, or create
    a role of a certain name.
    """
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
