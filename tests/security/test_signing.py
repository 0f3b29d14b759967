from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.exceptions import SigningKeyError, UntrustedObjectError
from dask_hpsearch.paths import data_folder
from dask_hpsearch.security.signing import (
    SigningKey,
    seal,
    unseal,
    unseal_unchecked,
    user_key,
    verify,
)

ROOT = Path(__file__).parents[2]
KEY = SigningKey.generate()
FOREIGN = SigningKey.generate()
CONTENT = b"what a run stores"
SEALED = seal(KEY, "run-1", "search.pkl", CONTENT)
SIGNATURE = KEY.sign("run-1", "search.pkl", CONTENT)

# Prints the public keys that a process gets which starts with many others.
FIRST_USE = """
import sys
from pathlib import Path
from dask_hpsearch.security.signing import user_key

print("ready", flush=True)
sys.stdin.readline()
print(*(user_key(Path(sys.argv[1]) / str(n)).public for n in range(20)))
"""


class Canary:
    """Makes a folder when its pickle is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@given(content=st.binary(max_size=200), run_id=st.text(), name=st.text())
def test_what_was_sealed_is_unsealed(content: bytes, run_id: str, name: str) -> None:
    """Any content, under any run and name."""
    sealed = seal(KEY, run_id, name, content)

    assert unseal(KEY.public, run_id, name, sealed) == content
    assert unseal_unchecked(run_id, name, sealed) == content


@given(content=st.binary(max_size=200), run_id=st.text(), name=st.text())
def test_what_was_signed_is_verified(content: bytes, run_id: str, name: str) -> None:
    """A signature can be kept beside the object as well."""
    verify(KEY.public, run_id, name, content, KEY.sign(run_id, name, content))


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("run-2", "search.pkl"),
        ("run-1", "result.pkl"),
        ("run-1search", ".pkl"),
        ("run-", "1search.pkl"),
        ("", "run-1search.pkl"),
        ("search.pkl", "run-1"),
    ],
)
def test_a_swapped_object_is_refused(run_id: str, name: str) -> None:
    """From another run, from another name, and however the two texts are cut."""
    with pytest.raises(UntrustedObjectError) as told:
        unseal(KEY.public, run_id, name, SEALED)

    assert f"{name!r} of run {run_id!r} is not trusted" in str(told.value)
    with pytest.raises(UntrustedObjectError, match="another run or name"):
        verify(KEY.public, run_id, name, CONTENT, SIGNATURE)


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_a_cut_envelope_is_refused(length: int) -> None:
    """At every length, from nothing to one byte less than the whole."""
    with pytest.raises(UntrustedObjectError):
        unseal(KEY.public, "run-1", "search.pkl", SEALED[:length])


@given(tail=st.binary(min_size=1))
def test_a_longer_envelope_is_refused(tail: bytes) -> None:
    """Nothing may follow the content."""
    with pytest.raises(UntrustedObjectError, match=r"bytes instead of 17"):
        unseal(KEY.public, "run-1", "search.pkl", SEALED + tail)


@given(bit=st.integers(0, 8 * len(SEALED) - 1))
def test_one_flipped_bit_is_refused(bit: int) -> None:
    """Anywhere: in the magic, the key, the signature, the length, the content."""
    altered = bytearray(SEALED)
    altered[bit // 8] ^= 1 << bit % 8

    with pytest.raises(UntrustedObjectError):
        unseal(KEY.public, "run-1", "search.pkl", bytes(altered))


@given(bit=st.integers(0, 8 * len(SIGNATURE) // 2 - 1))
def test_one_flipped_bit_of_a_signature_is_refused(bit: int) -> None:
    """A signature that lies beside its object is as strict."""
    altered = bytearray.fromhex(SIGNATURE)
    altered[bit // 8] ^= 1 << bit % 8

    with pytest.raises(UntrustedObjectError):
        verify(KEY.public, "run-1", "search.pkl", CONTENT, altered.hex())


@pytest.mark.parametrize("garbage", ["", "zz", "00", "é", SIGNATURE + "00"])
def test_garbage_is_no_signature_and_no_key(garbage: str) -> None:
    """Texts that come from an altered manifest are refused, not crashed on."""
    with pytest.raises(UntrustedObjectError):
        verify(KEY.public, "run-1", "search.pkl", CONTENT, garbage)
    with pytest.raises(UntrustedObjectError):
        verify(garbage, "run-1", "search.pkl", CONTENT, SIGNATURE)
    with pytest.raises(UntrustedObjectError):
        unseal(garbage, "run-1", "search.pkl", SEALED)


def test_a_foreign_key_is_named() -> None:
    """Both keys are in the message, and the way out."""
    with pytest.raises(UntrustedObjectError) as told:
        unseal(FOREIGN.public, "run-1", "search.pkl", SEALED)

    for part in (KEY.public, FOREIGN.public, "'search.pkl'", "'run-1'", "trust=True"):
        assert part in str(told.value)


def test_a_foreign_signature_under_our_name_is_refused() -> None:
    """Who writes our public key into an envelope cannot sign for it."""
    forged = seal(FOREIGN, "run-1", "search.pkl", CONTENT).replace(
        bytes.fromhex(FOREIGN.public), bytes.fromhex(KEY.public)
    )

    with pytest.raises(UntrustedObjectError, match="signature is invalid"):
        unseal(KEY.public, "run-1", "search.pkl", forged)


def test_a_pickle_of_others_never_runs(tmp_path: Path) -> None:
    """Unsigned, foreign, swapped or replaced: refused before a byte is parsed."""
    canary = tmp_path / "ran"
    payload = pickle.dumps(Canary(canary))
    replaced = seal(KEY, "run-1", "search.pkl", bytes(len(payload)))[: -len(payload)]

    for planted in [
        payload,
        seal(FOREIGN, "run-1", "search.pkl", payload),
        seal(KEY, "run-2", "search.pkl", payload),
        seal(KEY, "run-1", "result.pkl", payload),
        replaced + payload,
    ]:
        with pytest.raises(UntrustedObjectError):
            pickle.loads(unseal(KEY.public, "run-1", "search.pkl", planted))
        assert not canary.exists()

    # The canary itself works.
    trusted = seal(KEY, "run-1", "search.pkl", payload)
    pickle.loads(unseal(KEY.public, "run-1", "search.pkl", trusted))
    assert canary.exists()


def test_what_is_no_envelope_is_refused_unchecked_too() -> None:
    """Even who trusts everybody gets whole objects only."""
    for broken in [b"", b"pickle", SEALED[:50], SEALED[:-1]]:
        with pytest.raises(UntrustedObjectError):
            unseal_unchecked("run-1", "search.pkl", broken)


def test_a_key_comes_back_from_its_file(tmp_path: Path) -> None:
    """The file is for its owner alone, whatever the umask."""
    path = tmp_path / "new" / "key.pem"
    before = os.umask(0)
    try:
        KEY.to_file(path)
    finally:
        os.umask(before)

    assert SigningKey.from_file(path).public == KEY.public
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    """The runs that it signed would be lost."""
    KEY.to_file(tmp_path / "key.pem")

    with pytest.raises(SigningKeyError, match="never overwritten"):
        FOREIGN.to_file(tmp_path / "key.pem")

    assert SigningKey.from_file(tmp_path / "key.pem").public == KEY.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o660, 0o644, 0o777])
def test_a_key_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Mode and file are told, and how to mend it."""
    user_key(tmp_path)
    path = tmp_path / "signing-key.pem"
    path.chmod(mode)

    with pytest.raises(SigningKeyError, match=rf"mode {mode:o}.*chmod 600 '{path}'"):
        user_key(tmp_path)


def test_a_key_file_that_holds_none_is_told(tmp_path: Path) -> None:
    """Missing, empty, garbage, a key of another kind."""
    path = tmp_path / "key.pem"
    with pytest.raises(SigningKeyError, match="cannot be read: No such file"):
        SigningKey.from_file(path)

    other = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for content in [b"", b"garbage", other]:
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(SigningKeyError, match="contains no Ed25519 key"):
            SigningKey.from_file(path)


def test_a_key_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    """The way out is a folder of one's own."""
    (tmp_path / "file").touch()

    with pytest.raises(SigningKeyError, match="DASK_HPSEARCH_HOME"):
        user_key(tmp_path / "file" / "folder")


def test_the_users_key_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first use makes it, in the user's data folder; later ones read it."""
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path / "home"))

    first = user_key()

    assert user_key().public == first.public
    assert user_key(tmp_path / "home").public == first.public
    assert user_key(tmp_path / "other").public != first.public


def test_processes_that_use_it_first_together_make_one_key(tmp_path: Path) -> None:
    """All get the key that stays."""
    with contextlib.ExitStack() as stack:
        users = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", FIRST_USE, str(tmp_path)],
                    env=os.environ | {"PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(5)
        ]
        for user in users:
            stack.callback(user.kill)
            assert user.stdout is not None
            assert user.stdout.readline() == "ready\n"
        for user in users:
            assert user.stdin is not None
            user.stdin.write("go\n")
            user.stdin.flush()
        found = [user.communicate()[0].split() for user in users]

    for keys in found:
        assert keys == [user_key(tmp_path / str(n)).public for n in range(20)]
    assert len(list(tmp_path.glob("*/*"))) == 20


def test_a_key_is_neither_pickled_nor_shown() -> None:
    """It goes into no task and no log."""
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(KEY)

    assert repr(KEY) == f"<SigningKey, public: {KEY.public}>"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has a place of its own")
@pytest.mark.parametrize(
    ("ours", "shared", "expected"),
    [
        ("/data/mine", "/data", "/data/mine"),
        ("~/mine", None, "/home/me/mine"),
        (None, "/data", "/data/dask_hpsearch"),
        ("", "relative", "/home/me/.local/share/dask_hpsearch"),
        (None, None, "/home/me/.local/share/dask_hpsearch"),
    ],
)
def test_the_data_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch,
    ours: str | None,
    shared: str | None,
    expected: str,
) -> None:
    """Our own variable first, then the desktop's, then the usual place."""
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in [("DASK_HPSEARCH_HOME", ours), ("XDG_DATA_HOME", shared)]:
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)

    assert data_folder() == Path(expected)
