"""Where Google's accounts get their tokens, and a file of credentials that points there."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = "somebody@some-project.iam.gserviceaccount.com"


@dataclass(slots=True)
class TokenService:
    """Hands out one token.

    Attributes
    ----------
    token : str
    url : str
    asked : int
        How often it was asked for.
    refuses : bool
    scopes : list of str
        Scopes of the tokens that were asked for, each time as one text.
    """

    token: str
    url: str = ""
    asked: int = 0
    refuses: bool = False
    scopes: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def credentials(self, folder: Path) -> Path:
        """Write a service account's key file, as Application Default Credentials."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        content = {
            "type": "service_account",
            "project_id": "some-project",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": ACCOUNT,
            "client_id": "1",
            "token_uri": self.url,
        }
        path = folder / "credentials.json"
        path.write_text(json.dumps(content))
        path.chmod(0o600)
        return path


def users_login(folder: Path, url: str) -> Path:
    """Write the login of a person of an organization, with gcloud's client and an old project.

    Parameters
    ----------
    folder : Path
    url : str
        Of the service of tokens, without ``/token``.
    """
    content = {
        "type": "external_account_authorized_user",
        "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/q",
        "client_id": "gcloud",
        "client_secret": "no secret",
        "refresh_token": "1",
        "token_url": f"{url}/token",
        "quota_project_id": "of-another-day",
    }
    file = folder / "login.json"
    file.write_text(json.dumps(content))
    return file


def _scope_of(form: dict[str, list[str]]) -> str:
    """Return the scope that is asked for: a claim of a service account's assertion."""
    (assertion,) = form["assertion"]
    payload = assertion.split(".")[1]
    padded = payload + "=" * (-len(payload) % 4)
    claims: dict[str, str] = json.loads(base64.urlsafe_b64decode(padded))
    return claims["scope"]


@contextlib.contextmanager
def token_service(token: str) -> Iterator[TokenService]:
    """Serve it on loopback while the context lasts."""
    service = TokenService(token)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"])).decode()
            with service.lock:
                service.asked += 1
                service.scopes.append(_scope_of(parse_qs(content)))
            answer: dict[str, Any] = {
                "access_token": service.token,
                "expires_in": 3600,
                "token_type": "Bearer",
            }
            if service.refuses:
                answer = {"error": "invalid_grant", "error_description": "Bad key."}
            body = json.dumps(answer).encode()
            self.send_response(400 if service.refuses else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_address[1]}/token"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()
