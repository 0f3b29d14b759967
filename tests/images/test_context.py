"""What an image is built from, and how a builder is called."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from dask_hpsearch.cli import main
from dask_hpsearch.exceptions import ImageBuildError
from dask_hpsearch.images.context import lay_out
from dask_hpsearch.images.local import build, find_builder

if TYPE_CHECKING:
    from pathlib import Path

# Tells what it was called with; fails when it is asked to.
BUILDER = """#!{python}
import sys
print("called", *sys.argv[1:])
sys.exit(3 if "--fail" in sys.argv else 0)
"""


def text(folder: Path, name: str) -> list[str]:
    """Return the lines of a file of a context."""
    return (folder / name).read_text().splitlines()


def test_an_image_gets_this_environments_versions(tmp_path: Path) -> None:
    """What is pickled here loads there."""
    context = lay_out(tmp_path / "a", extras=["kubernetes"])

    pins = text(context.folder, "constraints.txt")
    for name in ("dask", "distributed", "scikit-learn", "cloudpickle"):
        assert f"{name}=={version(name)}" in pins
    assert not any("dask-hpsearch" in pin for pin in pins)
    wanted = text(context.folder, "requirements.txt")
    assert any(line.startswith("dask-kubernetes") for line in wanted)
    assert (context.folder / "package" / "dask_hpsearch" / "__init__.py").is_file()
    assert not list(context.folder.rglob("__pycache__"))
    assert context.python == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_the_tag_names_the_content(tmp_path: Path) -> None:
    """The same content has the same tag, and another one another."""
    module = tmp_path / "my_estimators.py"
    module.write_text("x = 1\n")

    tags = [
        lay_out(tmp_path / "a").tag,
        lay_out(tmp_path / "b").tag,
        lay_out(tmp_path / "c", modules=[module]).tag,
        lay_out(tmp_path / "d", requirements=["numpy==2.0"]).tag,
    ]

    assert tags[0] == tags[1]
    assert len(set(tags)) == 3


def test_the_users_modules_go_in(tmp_path: Path) -> None:
    """A file and a folder, without what Python has compiled."""
    (tmp_path / "mine" / "__pycache__").mkdir(parents=True)
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "one.py").write_text("")

    context = lay_out(tmp_path / "a", modules=[tmp_path / "mine", tmp_path / "one.py"])

    assert (context.folder / "modules" / "mine" / "__init__.py").is_file()
    assert (context.folder / "modules" / "one.py").is_file()
    assert not list(context.folder.rglob("__pycache__"))


def test_the_users_requirement_has_the_last_word(tmp_path: Path) -> None:
    """A version that a spec names is not pinned to the client's."""
    context = lay_out(tmp_path / "a", requirements=["Bokeh==3.1"])

    pins = text(context.folder, "constraints.txt")
    assert not any(pin.startswith("bokeh==") for pin in pins)


@pytest.mark.parametrize("name", ["account.json", "key.pem"])
def test_a_private_key_does_not_get_into_an_image(name: str, tmp_path: Path) -> None:
    """Such as that of a service account, left among the modules."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    key = pem.decode()
    (tmp_path / "mine").mkdir()
    content = json.dumps({"private_key": key}) if name.endswith("json") else key
    (tmp_path / "mine" / name).write_text(content)

    with pytest.raises(ImageBuildError, match=rf"mine/{name} contains a private key"):
        lay_out(tmp_path / "a", modules=[tmp_path / "mine"])


def test_a_word_of_private_keys_is_no_key(tmp_path: Path) -> None:
    """A module may speak of them."""
    (tmp_path / "mine.py").write_text('BEGIN = "-----BEGIN PRIVATE KEY-----"\n')

    lay_out(tmp_path / "a", modules=[tmp_path / "mine.py"])


def test_a_module_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(ImageBuildError, match=r"missing\.py"):
        lay_out(tmp_path / "a", modules=[tmp_path / "missing.py"])


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    """Nothing of the user's is mixed in, or overwritten."""
    (tmp_path / "mine").write_text("")

    with pytest.raises(ImageBuildError, match="not empty"):
        lay_out(tmp_path)


@pytest.fixture
def builder(tmp_path: Path) -> str:
    """Return a program that stands where buildah would."""
    path = tmp_path / "builder"
    path.write_text(BUILDER.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def test_a_builder_is_called_with_the_context(tmp_path: Path, builder: str) -> None:
    """The image's name is the content's, unless one is given."""
    context = lay_out(tmp_path / "a")

    assert build(context, builder=builder) == context.tag
    assert build(context, builder=builder, tag="x:1") == "x:1"


def test_a_builders_progress_is_shown(tmp_path: Path, builder: str) -> None:
    """A build takes minutes; it is seen to go on."""
    said: list[str] = []

    build(lay_out(tmp_path / "a"), builder=builder, say=said.append)

    assert any(line.startswith("called build --tag") for line in said)


def test_a_builders_failure_is_quoted(tmp_path: Path, builder: str) -> None:
    """The error has what the builder said, and its exit code."""
    context = lay_out(tmp_path / "a")

    with pytest.raises(ImageBuildError) as caught:
        build(context, builder=builder, options=["--fail"])

    assert "exit code 3" in str(caught.value)
    assert "called build --tag" in str(caught.value)


def test_a_missing_builder_is_told() -> None:
    """The error says what would do."""
    with pytest.raises(ImageBuildError, match="there is no nosuchbuilder"):
        find_builder("nosuchbuilder")


def test_the_command_prints_the_images_name(
    tmp_path: Path, builder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the modules and requirements of a spec, found beside it."""
    (tmp_path / "my.py").write_text("")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "image: x:1\nworkers: {cpu: 1, memory: 1Gi, slots: 1}\n"
        "requirements: [six==1.17.0]\nmodules: [my.py]\n"
    )

    assert main(["image", "context", str(tmp_path / "a"), "--spec", str(spec)]) == 0
    tag = capsys.readouterr().out.strip()
    assert "six==1.17.0" in text(tmp_path / "a", "requirements.txt")
    arguments = ["--builder", builder, "--spec", str(spec)]
    assert main(["image", "build", "--local", *arguments]) == 0
    assert capsys.readouterr().out.strip() == tag
    assert (tmp_path / "a" / "modules" / "my.py").is_file()
