"""No secret, key or token gets into a layer of an image."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dask_hpsearch
from dask_hpsearch.exceptions import ImageBuildError
from dask_hpsearch.gcp.images.images import pack
from dask_hpsearch.images.context import lay_out
from tests.images.planted import Planted, all_of_them, pem

if TYPE_CHECKING:
    from collections.abc import Iterable

PLANTED = all_of_them()
HIDDEN = (".env", ".kube", ".config", "__pycache__")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A module of the user's own."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("x = 1\n")
    return folder


def content_of(context: Path, archive: Path) -> dict[str, bytes]:
    """Pack a context as Cloud Build gets it; return the files of the archive."""
    pack(context, archive)
    found = {}
    with tarfile.open(archive) as tar:
        for entry in tar.getmembers():
            assert entry.isfile() or entry.isdir(), entry.name
            if entry.isfile():
                file = tar.extractfile(entry)
                assert file is not None
                found[entry.name] = file.read()
    return found


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_a_secret_among_the_modules_is_refused(
    planted: Planted, mine: Path, tmp_path: Path
) -> None:
    """The error says which file, what it is and the way out; it does not say the secret."""
    (mine / "deep").mkdir()
    (mine / "deep" / planted.name).write_bytes(planted.content)

    with pytest.raises(ImageBuildError) as caught:
        lay_out(tmp_path / "context", modules=[mine])

    said = str(caught.value)
    assert f"modules/mine/deep/{planted.name} contains" in said
    assert planted.kind in said
    assert "secrets: in the spec" in said
    assert planted.secret not in said.encode()
    assert planted.secret not in repr(caught.value).encode()
    assert list((tmp_path / "context").iterdir()) == []  # nothing stays there


@pytest.mark.parametrize("name", ["store.p12", "Store.PFX", "store.jks"])
def test_a_store_of_keys_is_told_by_its_name(
    name: str, mine: Path, tmp_path: Path
) -> None:
    """What is in it cannot be read, and that is what it is for."""
    (mine / name).write_bytes(b"\x30\x82")

    with pytest.raises(ImageBuildError, match="a store of keys"):
        lay_out(tmp_path / "context", modules=[mine])


_PLACES = st.lists(
    st.tuples(
        st.sampled_from(["", "deep", "deep/er", *HIDDEN]),
        st.sampled_from(["plain", "link", "hidden", "compiled"]),
        st.sampled_from(range(len(PLANTED))),
        st.binary(max_size=40),
    ),
    max_size=3,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(places=_PLACES)
def test_whatever_is_laid_out_has_no_secret(
    places: list[tuple[str, str, int, bytes]],
) -> None:
    """Wherever they lie, among whatever bytes: refused, or not in the archive."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = folder / "mine"
        module.mkdir()
        (module / "__init__.py").write_text("x = 1\n")
        open_to_all = False
        for number, (where, how, which, around) in enumerate(places):
            planted = PLANTED[which]
            path = module / where / _name(how, number, planted)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = b"%s\n%s\n%s" % (around, planted.content, around)
            if planted.name == "key.txt":  # has to begin as it does
                content = planted.content
            target = folder / f"elsewhere-{number}" if how == "link" else path
            target.write_bytes(content)
            if how == "link":
                path.symlink_to(target)
            open_to_all |= how in ("plain", "link") and where not in HIDDEN

        try:
            lay_out(folder / "context", modules=[module], extras=[])
        except ImageBuildError:
            assert open_to_all
            return

        assert not open_to_all
        files = content_of(folder / "context", folder / "archive.tgz")
        assert "modules/mine/__init__.py" in files
        assert (
            given_away(files, [PLANTED[which].secret for _, _, which, _ in places])
            == []
        )


def _name(how: str, number: int, planted: Planted) -> str:
    if how == "hidden":
        return f".{number}-{planted.name}"
    return f"{number}.pyc" if how == "compiled" else f"{number}-{planted.name}"


def given_away(files: dict[str, bytes], secrets: Iterable[bytes]) -> list[str]:
    """Name the files that have any of some secrets."""
    return [
        name
        for name, content in files.items()
        if any(secret in content for secret in secrets)
    ]


def test_an_image_has_nothing_of_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither credentials nor kubeconfig nor keys of ours: this package, and versions."""
    home = tmp_path / "home"
    for number, planted in enumerate(PLANTED):
        path = home / (".kube", ".config/gcloud", "ours")[number % 3] / planted.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(planted.content)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(home / "ours"))
    monkeypatch.setenv("KUBECONFIG", str(home / ".kube" / "config"))
    monkeypatch.setenv("CLOUDSDK_AUTH_ACCESS_TOKEN", PLANTED[20].secret.decode())
    monkeypatch.chdir(home)

    files = content_of(lay_out(tmp_path / "context").folder, tmp_path / "archive.tgz")

    package = Path(dask_hpsearch.__file__).parent
    kinds = {".css", ".js", ".py", ".toml", ".typed"}
    ours = {
        f"package/dask_hpsearch/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.suffix in kinds or path.name == "Dockerfile"
    }
    texts = {"Dockerfile", "requirements.txt", "constraints.txt", "modules/README"}
    assert set(files) == ours | texts
    secrets = [planted.secret for planted in PLANTED]
    assert given_away(files, [*secrets, str(home).encode()]) == []


@pytest.mark.parametrize("inside", ["", "projects/one"])
def test_the_home_folder_is_no_module(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would be with modules: [.] where somebody works in it."""
    home = tmp_path / inside / "home"
    home.mkdir(parents=True)
    (home / "mine.py").write_text("x = 1\n")
    monkeypatch.setenv("HOME", str(home))

    with pytest.raises(ImageBuildError, match="your home folder"):
        lay_out(tmp_path / "context", modules=[tmp_path / inside / "home"])
    with pytest.raises(ImageBuildError, match="your home folder"):
        lay_out(tmp_path / "context", modules=[tmp_path])


@pytest.mark.parametrize("name", [".env", ".kube"])
def test_what_is_hidden_is_no_module(name: str, tmp_path: Path) -> None:
    """Also when it is named."""
    (tmp_path / name).mkdir()

    with pytest.raises(ImageBuildError, match="is hidden"):
        lay_out(tmp_path / "context", modules=[tmp_path / name])


@pytest.mark.parametrize("target", ["../elsewhere.txt", "../folder", ".hidden", "deep"])
def test_a_link_that_is_not_followed_is_told(
    target: str, mine: Path, tmp_path: Path
) -> None:
    """Its target would be in the image, whatever it is."""
    (tmp_path / "elsewhere.txt").write_text("nothing that looks like a secret")
    (tmp_path / "folder").mkdir()
    (mine / ".hidden").write_text("hunter2")
    (mine / "deep").mkdir()
    (mine / "link.txt").symlink_to(target)

    with pytest.raises(ImageBuildError, match=r"link\.txt is a link"):
        lay_out(tmp_path / "context", modules=[mine])


def test_a_link_within_a_module_is_followed(mine: Path, tmp_path: Path) -> None:
    """The image has the file itself; a module may be a link of its own."""
    (mine / "deep").mkdir()
    (mine / "deep" / "link.py").symlink_to("../__init__.py")
    (tmp_path / "named.py").symlink_to(mine / "__init__.py")
    (tmp_path / "other").symlink_to(mine)
    modules = [mine, tmp_path / "named.py", tmp_path / "other"]

    context = lay_out(tmp_path / "context", modules=modules)

    files = content_of(context.folder, tmp_path / "archive.tgz")
    for name in ("mine/deep/link.py", "named.py", "other/deep/link.py"):
        assert files[f"modules/{name}"] == b"x = 1\n"


@pytest.mark.parametrize(
    "requirement",
    [
        "x @ https://me:hunter2@example.org/x.whl",
        "x @ git+https://hunter2@example.org/x",
        "x @ https://example.org/x.whl?token=hunter2",
    ],
)
def test_a_requirement_with_a_login_is_refused(
    requirement: str, tmp_path: Path
) -> None:
    """The file that pip reads is in the image."""
    with pytest.raises(ImageBuildError, match="requirement 1") as caught:
        lay_out(tmp_path / "context", requirements=["six", requirement])

    assert "hunter2" not in str(caught.value)


def test_there_are_keys_to_look_for() -> None:
    """What is planted is what it is said to be, and never the same."""
    assert "PRIVATE KEY" in pem()
    assert pem() != pem()
    assert len({planted.name for planted in PLANTED}) == len(PLANTED)
    assert all(planted.secret in planted.content for planted in PLANTED)
