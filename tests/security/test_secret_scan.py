"""What is told to be a secret, and above all what is not."""

from __future__ import annotations

import base64
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import pytest

from dask_hpsearch.security.secret_scan import (
    secret_in,
    secret_in_address,
    secret_in_file,
    secret_in_variable,
)
from tests.images.planted import Planted, all_of_them, some

PLANTED = all_of_them()
LOGIN = "https://me:hunter2@example.org"
INNOCENT = {
    "a class with tokens": """
class Tokenizer(TransformerMixin):
    def __init__(self, token_pattern=r"(?u)\\b\\w\\w+\\b", refresh_token=None):
        self.refresh_token = refresh_token
""",
    "a login by names": """
def renew(session, refresh_token: OAuth2RefreshTokenProvider, client_secret):
    data = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    client_secret = settings.OAUTH2_CLIENT_SECRET
    token = os.environ["GITHUB_TOKEN_2"]
    return session.post(URL, data=data, auth=(client_id, client_secret))
""",
    "annotations": "class A:\n    user: str\n    token: AccessToken2\n    password: str\n",
    "a schema": "user:\n  type: object\n  properties:\n    token:\n      type: string\n",
    "words of keys": 'BEGIN = "-----BEGIN PRIVATE KEY-----"\n\nimport os\nimport sys\n',
    "prose of keys": "between -----BEGIN PRIVATE KEY-----\nand the line that ends it, and\n",
    "a name for a value": '{"client_secret": "YOUR_CLIENT_SECRET_HERE"}',
    "a template": 'client-key-data: {{ key }}\nuser:\n  token: "${KUBE_TOKEN_2}"\n',
    "an address of a template": 'f"redis://{user}:{password2}@{host}/0"',
    "an address of a manual": "postgresql://user:password@host/db",
    "a shared address": "git+ssh://git@github.com/some/project",
    "floor division": "assert 1//0 == 1//0",
    "beginnings alone": "ya29. AIza ghp_ github_pat_ AKIA xoxb- hf_ sk- eyJ GOCSPX- glpat-",
    "names like tokens": "hf_model_name_of_some_transformer_layers = sk-learn-pipelines",
    "a key's public part": "AKIAABCDEFGHIJKLMNOP",
    "a digest": "sha256:" + "0123456789abcdef" * 4,
    "an empty login": '{"auths": {"example.org": {}}}',
}


@pytest.mark.parametrize("text", INNOCENT.values(), ids=INNOCENT)
def test_words_are_no_secrets(text: str) -> None:
    """Code may speak of tokens, and a form may have holes to be filled."""
    assert secret_in(text.encode()) is None


def test_a_public_certificate_is_no_secret() -> None:
    """A kubeconfig without a login may be in an image."""
    certificate = (
        f"-----BEGIN CERTIFICATE-----\n{some(64)}\n-----END CERTIFICATE-----\n"
    )
    encoded = base64.b64encode(certificate.encode()).decode()
    config = f"clusters:\n- cluster:\n    certificate-authority-data: {encoded}\n"

    assert secret_in(certificate.encode()) is None
    assert secret_in(config.encode()) is None


@pytest.mark.parametrize(
    "package", ["dask_hpsearch", "tests", "sklearn.utils", "google.auth"]
)
def test_code_of_packages_has_no_secrets(package: str) -> None:
    """Not even in code whose matter is tokens and keys; ours go into images."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None

    files = [path for path in Path(spec.origin).parent.rglob("*") if path.is_file()]
    found = {path: secret_in_file(path) for path in files if path.suffix != ".pyc"}

    assert len(found) > 20
    assert {path: kind for path, kind in found.items() if kind is not None} == {}


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_a_secret_is_found_at_a_seam(planted: Planted, tmp_path: Path) -> None:
    """Wherever the end of a piece that is read cuts it."""
    path = tmp_path / planted.name
    at = planted.content.find(planted.secret)
    content = planted.content[max(0, at - 12_000) :]
    if planted.name == "key.txt":  # letters of two bytes, as its beginning says
        content = planted.content + planted.content

    for before in (2**15 - at % 12_000 - 10, 2**15 - 1, 2**15 + 1):
        padding = b"" if planted.name == "key.txt" else b"# x\n" * (before // 4)
        path.write_bytes(padding + content)
        assert secret_in_file(path, piece_bytes=2**15) is not None


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """A model or table may lie among the modules."""
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(40 * 2**20)
    tracemalloc.start()
    try:
        assert secret_in_file(path) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 * 2**20


@pytest.mark.parametrize(
    "text",
    [
        f"six @ {LOGIN}/six.whl",
        "six @ https://hunter2@example.org/six.whl",
        "six @ git+https://hunter2@github.com/some/six",
        "six @ git+ssh://git:hunter2@github.com/some/six",
        "six @ https://example.org/six.whl?X-Goog-Signature=hunter2",
        f"--extra-index-url {LOGIN}/simple",
        f"six @ https://example.org/{'ghp_' + some(36)}/six.whl",
    ],
)
def test_an_address_with_a_login_is_told(text: str) -> None:
    """A name alone is a token, where nobody logs in by a key."""
    assert secret_in_address(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "six==1.17.0",
        "six @ https://example.org/six.whl#sha256=0123",
        "six @ git+https://github.com/some/six@v1.2",
        "six @ git+ssh://git@github.com/some/six@main",
        "six @ file:///opt/six.whl",
        "six @ https://[broken/six.whl",
    ],
)
def test_an_address_without_a_login_is_well(text: str) -> None:
    """A version may follow an @, and ssh has a user's name that is everybody's."""
    assert secret_in_address(text) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_PASSWORD", "hunter2"),
        ("HF_TOKEN", "abc"),
        ("AWS_SECRET_ACCESS_KEY", "abc"),
        ("API_KEY", "abc"),
        ("BROKER", "redis://:pw@example.org"),
        ("OTHER", "ya29." + some(40)),
    ],
)
def test_a_variable_may_be_a_secret(name: str, value: str) -> None:
    """By its name, or by its value."""
    assert secret_in_variable(name, value) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/secrets/account.json"),
        ("DB_PASSWORD_FILE", "/secrets/password"),
        ("USE_TOKEN", "true"),
        ("STORAGE_EMULATOR_HOST", "http://bucket:4443"),
        ("OMP_NUM_THREADS", "1"),
    ],
)
def test_most_variables_are_no_secrets(name: str, value: str) -> None:
    """Where a secret lies is none."""
    assert secret_in_variable(name, value) is None
