"""Detects secrets by their form: keys, tokens, and URLs with a password.

Only unambiguous forms are detected: a fixed prefix and length, or a name with its value.
Random-looking values and passwords that look like words are not.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OVERLAP = 2**15  # no form is longer
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_WHITE = b" \t\r\n"
# Names of variables with secret values.
_SECRET_NAME = re.compile(
    r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_KEY|SECRET_KEY"
    r"|PRIVATE_KEY|ACCOUNT_KEY)$",
    re.IGNORECASE,
)
_NO_SECRET = frozenset({"", "0", "1", "true", "false", "none"})
_SECRET_PARAMETER = re.compile(
    r"(token|key|secret|password|passwd|signature|sig|auth)$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Form:
    """A kind of secret.

    Attributes
    ----------
    kind : str
    needles : tuple of bytes
        Each secret of the kind contains one of these; searched first, since that is fast.
    pattern : re.Pattern
    compact : bool
        Whether white space is ignored, as in base64.
    """

    kind: str
    needles: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    compact: bool = False

    def is_in(self, content: bytes) -> bool:
        return any(one in content for one in self.needles) and bool(
            self.pattern.search(content)
        )


def _form(kind: str, needles: str, pattern: str, *, compact: bool = False) -> _Form:
    return _Form(
        kind,
        tuple(one.encode() for one in needles.split()),
        re.compile(pattern.encode()),
        compact,
    )


def _in_base64(text: str) -> list[str]:
    """Return a text in base64, at each of the three possible offsets."""
    found = []
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + text.encode())
        first = -(-before * 8 // 6)
        last = (before + len(text)) * 8 // 6
        found.append(encoded[first:last].decode())
    return found


_KEYS_IN_BASE64 = _in_base64("PRIVATE KEY")
# Separators between the lines of a key, also in JSON and in code.
_BREAK = r"""(?:\s|\\+[nr]|["'+,])"""
_QUOTE = r"""\\?["']"""
_VALUE = r"""[^\s"'\\{}$<>]"""
_SCALAR = r"""["']?[\w+/=.:@-]{0,20000}["']?"""

_FORMS = (
    _form(
        "a private key",
        "PRIVATE",
        rf"-----BEGIN (?:[A-Z0-9]+ ){{0,4}}PRIVATE KEY(?: BLOCK)?-----{_BREAK}+"
        rf"(?:[\w-]+: [^\n\\]{{0,200}}{_BREAK}+){{0,4}}(?:[A-Za-z0-9+/]|\\/){{40}}",
    ),
    _form(
        "the private key of a kubeconfig",
        "client-key-data",
        r"""client-key-data["']?\s*:\s*["']?[A-Za-z0-9+/=]{40}""",
    ),
    _form(
        "a private key in base64",
        " ".join(_KEYS_IN_BASE64),
        rf"(?:{'|'.join(_KEYS_IN_BASE64)})[\w+/=-]{{40}}",
        compact=True,
    ),
    _form(
        "a private key of PuTTY",
        "PuTTY-User-Key-File-",
        r"PuTTY-User-Key-File-\d: [\s\S]{0,4000}?Private-Lines: \d",
    ),
    _form("a private key of age", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    _form(
        "the token or password of a kubeconfig",
        "token password",
        r"""user["']?\s*:[\s{]*"""
        rf"""(?:["']?[\w-]+["']?[ \t]*:[ \t]*{_SCALAR}[\s,]+){{0,10}}"""
        r"""["']?(?:token|password)["']?[ \t]*:[ \t]*["']?"""
        r"""(?=[^\s"']*\d)[^\s"'\\{}$<>,]{8}""",
    ),
    _form(
        "a JSON web token",
        "eyJ",
        r"(?<![\w-])eyJ[\w-]{10,4000}\.eyJ[\w-]{10,16000}\.[\w-]{20}",
    ),
    _form(
        "a refresh token, client secret or secret access key",
        "refresh_token refresh-token client_secret client-secret secret_access_key"
        " SECRET_ACCESS_KEY",
        r"(?:refresh[-_]token|client[-_]secret|secret_access_key|SECRET_ACCESS_KEY)"
        rf"(?:{_QUOTE})?\s*[:=]\s*{_QUOTE}(?={_VALUE}*\d){_VALUE}{{16,}}{_QUOTE}",
    ),
    _form(
        "a secret access key of AWS",
        "secret_access_key SECRET_ACCESS_KEY",
        r"(?:secret_access_key|SECRET_ACCESS_KEY)\s*[:=]\s*"
        r"(?=[A-Za-z/+]*\d)[A-Za-z0-9/+]{40}(?![\w/+=.])",
    ),
    _form(
        "an access key with its secret",
        "AKIA ASIA GOOG",
        r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[A-Z0-9]{16}|GOOG[A-Z0-9]{20,57})"
        r"(?![A-Za-z0-9])[\s\S]{0,200}?(?<![\w/+=])[A-Za-z0-9/+]{40}(?![\w/+=])",
    ),
    _form("an access token of Google", "ya29.", r"(?<![\w.-])ya29\.[\w.-]{20}"),
    _form("a refresh token of Google", "1//0", r"(?<![\w.:/])1//0[\w-]{40}"),
    _form("a client secret of Google", "GOCSPX-", r"(?<![\w-])GOCSPX-[\w-]{28}"),
    _form(
        "an API key of Google",
        "AIza",
        r"(?<![\w/+-])AIza[\w-]{35}(?![\w/+=-])",
    ),
    _form(
        "a token of GitHub",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{50})",
    ),
    _form("a token of GitLab", "glpat-", r"(?<![\w-])glpat-[\w-]{20}"),
    _form(
        "a token of Slack",
        "xox xapp- hooks.slack.com",
        r"(?<![\w-])(?:xox[abeoprs]-\d[\w-]{15}|xapp-\d-[\w-]{20})"
        r"|hooks\.slack\.com/services/T\w{8,}/B\w{8,}/\w{20}",
    ),
    _form(
        "a token of Hugging Face", "hf_", r"(?<!\w)hf_(?=[A-Za-z]*[A-Z])[A-Za-z]{34}\b"
    ),
    _form(
        "a key of an AI service",
        "sk-ant- sk-proj- sk-svcacct- sk-admin-",
        r"(?<![\w-])sk-(?:ant|proj|svcacct|admin)-(?=[\w-]*\d)[\w-]{40}",
    ),
    _form("a token of PyPI", "pypi-AgE", r"(?<![\w-])pypi-AgE[\w-]{50}"),
    _form(
        "the login of an image registry",
        "auths",
        r"""auths["'][\s\S]{0,4000}?["']auth["']\s*:\s*["'][A-Za-z0-9+/=]{12,}""",
    ),
    _form(
        "a login of a netrc file", "machine", r"machine\s+\S+\s+login\s+\S+\s+password"
    ),
    _form(
        "an address with a password",
        "://",
        r"""://[^\s/:@"'{}$<>]{0,64}:(?=[^\s/@"']*\d)[^\s/@"'{}$<>]{8,256}@[\w.-]"""
        r"""|index-url\s*=?\s*https?://[^\s/@"'{}$<>]{1,256}@[\w.-]"""
        r"""|git\+https?://[^\s/@"'{}$<>]{12,256}@[\w.-]""",
    ),
)


def secret_in(content: bytes) -> str | None:
    """Return the kind of secret in some bytes.

    Returns
    -------
    str or None
        As ``"a private key"``; None if none is found.
    """
    compact = content.translate(None, _WHITE)
    for form in _FORMS:
        if form.is_in(compact if form.compact else content):
            return form.kind
    return None


def secret_in_file(path: Path, *, piece_bytes: int = 2**20) -> str | None:
    """Return the kind of secret in a file, which is read in pieces.

    Parameters
    ----------
    path : Path
    piece_bytes : int
        Size of a piece.
    """
    for content in _pieces(path, piece_bytes):
        kind = secret_in(content)
        if kind is not None:
            return kind
    return None


def _pieces(path: Path, nbytes: int) -> Iterator[bytes]:
    """Read a file in overlapping pieces; UTF-16 without its zero bytes."""
    with path.open("rb") as file:
        before = b""
        wide = False
        while chunk := file.read(nbytes):
            if not before:
                wide = chunk.startswith(_UTF_16)
            piece = before + chunk
            yield piece.replace(b"\0", b"") if wide else piece
            before = piece[-_OVERLAP:]


def secret_in_address(text: str) -> str | None:
    """Return the kind of secret in the URL of a requirement or option.

    Returns
    -------
    str or None
        A user name alone may be a token for ``https``, not for ``ssh``.
    """
    for address in re.findall(r"[\w+.-]+://\S+", text):
        try:
            parts = urlsplit(address)
            named, password = parts.username, parts.password
        except ValueError:  # not a URL
            continue
        if password or (named and "ssh" not in parts.scheme):
            return "an address with a user's name or password"
        if any(_SECRET_PARAMETER.search(name) for name, _ in parse_qsl(parts.query)):
            return "an address with a token"
    return secret_in(text.encode(errors="replace"))


def secret_in_variable(name: str, value: str) -> str | None:
    """Return the kind of secret in an environment variable, by its name or value."""
    kind = secret_in(value.encode(errors="replace"))
    if kind is None and re.search(r"://[^\s/@]*:[^\s/@]+@", value):
        kind = "an address with a password"
    if kind is None and _SECRET_NAME.search(name) and value.lower() not in _NO_SECRET:
        kind = "a secret, as its name says"
    return kind
