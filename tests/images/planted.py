"""Secrets as they lie about in folders, made up anew: none is written down here."""

from __future__ import annotations

import base64
import json
import random
import string
import textwrap
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

_LETTERS = string.ascii_letters + string.digits
_random = random.Random(7)


@dataclass(frozen=True, slots=True)
class Planted:
    """A file with a secret.

    Attributes
    ----------
    name : str
        Of the file.
    content : bytes
    secret : bytes
        The part that nobody may see.
    kind : str
        What an error calls it.
    """

    name: str
    content: bytes
    secret: bytes
    kind: str


def some(length: int, letters: str = _LETTERS) -> str:
    """Return a word that nobody could guess, with a digit in it."""
    return "".join(_random.choices(letters, k=length - 1)) + "7"


def pem(style: PrivateFormat = PrivateFormat.PKCS8, password: bytes = b"") -> str:
    """Return a new private key."""
    key = (
        generate_private_key(SECP256R1())
        if style == PrivateFormat.TraditionalOpenSSL
        else Ed25519PrivateKey.generate()
    )
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, style, how).decode()


def _body(key: str) -> bytes:
    """Return a line of a private key."""
    lines = [line for line in key.splitlines() if len(line) > 40 and ":" not in line]
    return lines[0].encode()


def _key(name: str, key: str) -> Planted:
    return Planted(name, key.encode(), _body(key), "a private key")


def _account() -> Planted:
    key = pem()
    account = {"type": "service_account", "private_key": key, "client_id": "1"}
    content = json.dumps(account).encode()
    return Planted("account.json", content, _body(key), "a private key")


def _in_code() -> Planted:
    key = pem()
    lines = "\n".join(f'    "{line}\\n"' for line in key.splitlines())
    content = f"KEY = (\n{lines}\n)\n".encode()
    return Planted("settings.py", content, _body(key), "a private key")


def _wide() -> Planted:
    """As Windows writes text."""
    key = pem()
    secret = _body(key).decode().encode("utf-16-le")
    return Planted("key.txt", key.encode("utf-16"), secret, "a private key")


def _in_base64(wrapped: int, before: str = "") -> Planted:
    encoded = base64.b64encode((before + pem()).encode()).decode()
    text = "\n  ".join(textwrap.wrap(encoded, wrapped))
    content = f"data:\n  tls.key: |\n  {text}\n".encode()
    secret = encoded[-60:-20].encode()
    kind = "a private key in base64"
    return Planted(f"secret-{wrapped}-{len(before)}.yaml", content, secret[:20], kind)


def _user() -> Planted:
    token = "1//0" + some(60)
    user = {
        "client_id": "1.apps.googleusercontent.com",
        "client_secret": "d-" + some(22),
        "refresh_token": token,
        "type": "authorized_user",
    }
    kind = "a refresh token"
    content = json.dumps(user, indent=2).encode()
    return Planted(
        "application_default_credentials.json", content, token.encode(), kind
    )


def _client() -> Planted:
    secret = some(24)
    content = json.dumps({"installed": {"client_secret": secret}}).encode()
    return Planted("client.json", content, secret.encode(), "client secret")


def _kubeconfig(field: str, value: str, kind: str, *, as_json: bool) -> Planted:
    user = {"client-certificate-data": "LS0tLS1CRUdJTiBDRVJU" * 80, field: value}
    lines = "".join(f"    {name}: {text}\n" for name, text in user.items())
    content = f"kind: Config\nusers:\n- name: me\n  user:\n{lines}"
    if as_json:
        content = json.dumps({"users": [{"name": "me", "user": user}]})
    name = f"kubeconfig-{field}.{'json' if as_json else 'yaml'}"
    return Planted(name, content.encode(), value.encode(), kind)


def _literal(name: str, kind: str, token: str, text: str = "TOKEN = '{}'\n") -> Planted:
    return Planted(f"{name}.py", text.format(token).encode(), token.encode(), kind)


def _binary() -> Planted:
    """A data base of gcloud: text among bytes of any kind."""
    token = "ya29." + some(80)
    content = _random.randbytes(3000) + b"\0" + token.encode() + b"\0\xff"
    return Planted("access_tokens.db", content, token.encode(), "token of Google")


def _large() -> Planted:
    """At the seam of two pieces, far from the beginning."""
    token = "ghp_" + some(36)
    content = b"# nothing\n" * 104_857 + f"T = '{token}'\n".encode() + b"\n" * 10**6
    return Planted("large.py", content, token.encode(), "token of GitHub")


def _keys_of_aws() -> Planted:
    secret = some(40)
    identity = "AKIA" + some(16, string.ascii_uppercase)
    content = f"A, B = '{identity}', '{secret}'\n".encode()
    return Planted("aws.py", content, secret.encode(), "an access key with its secret")


def _login_of_aws() -> Planted:
    secret = some(40)
    content = f"[default]\naws_secret_access_key = {secret}\n".encode()
    return Planted("aws.cfg", content, secret.encode(), "secret access key of AWS")


def _docker() -> Planted:
    login = base64.b64encode(f"me:{some(20)}".encode()).decode()
    content = json.dumps({"auths": {"example.org": {"auth": login}}}).encode()
    return Planted("config.json", content, login.encode(), "login of an image registry")


def all_of_them() -> list[Planted]:
    """Return a file of every kind."""
    token = ".".join(("eyJ" + some(30), "eyJ" + some(200), some(80)))
    key = base64.b64encode(pem().encode()).decode()
    password = some(12)
    of_key = "the private key of a kubeconfig"
    of_user = "the token or password of a kubeconfig"
    return [
        _key("key.pem", pem()),
        _key("id_ed25519", pem(PrivateFormat.OpenSSH)),
        _key("old.key", pem(PrivateFormat.TraditionalOpenSSL)),
        _key("locked.key", pem(PrivateFormat.TraditionalOpenSSL, b"password")),
        _key("locked.pem", pem(PrivateFormat.PKCS8, b"password")),
        _account(),
        _in_code(),
        _wide(),
        *(_in_base64(wrapped) for wrapped in (10_000, 76)),
        *(_in_base64(64, before) for before in ("a", "ab")),
        _user(),
        _client(),
        _kubeconfig("client-key-data", key, of_key, as_json=False),
        _kubeconfig("client-key-data", key, of_key, as_json=True),
        _kubeconfig("token", some(32), of_user, as_json=False),
        _kubeconfig("token", some(32), of_user, as_json=True),
        _kubeconfig("password", password, of_user, as_json=False),
        _literal("jwt", "a JSON web token", token),
        _literal("google", "access token of Google", "ya29." + some(120)),
        _literal("refresh", "refresh token of Google", "1//0" + some(90)),
        _literal("secret", "client secret of Google", "GOCSPX-" + some(28)),
        _literal("api", "API key of Google", "AIza" + some(35)),
        _literal("github", "token of GitHub", "ghp_" + some(36)),
        _literal("actions", "token of GitHub", "ghs_" + some(36)),
        _literal("pat", "token of GitHub", f"github_pat_{some(22)}_{some(59)}"),
        _literal("gitlab", "token of GitLab", "glpat-" + some(20)),
        _literal("slack", "token of Slack", f"xoxb-{10**11}-{10**12}-{some(24)}"),
        _literal("hub", "of Hugging Face", "hf_" + some(35, string.ascii_letters)[:-1]),
        _literal("ai", "key of an AI service", "sk-proj-" + some(90)),
        _literal("pypi", "token of PyPI", "pypi-AgEIcHlwaS5vcmc" + some(90)),
        _literal("index", "address with a password", some(20), "u://me:{}@example.org"),
        _literal("pip", "address with", some(20), "index-url = https://{}@example.org"),
        _binary(),
        _large(),
        _keys_of_aws(),
        _login_of_aws(),
        _docker(),
    ]
