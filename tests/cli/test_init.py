"""`dask-hpsearch init` writes specs that load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dask_hpsearch import cli
from dask_hpsearch.config.load import load_gke_spec, load_spec
from dask_hpsearch.config.spec_files import FIELDS, KINDS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_spec_loads(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the project's own loader; it has comments, and the next command."""
    path = tmp_path / "my spec.yaml"

    assert cli.main(["init", kind, str(path)]) == 0

    load = load_gke_spec if kind == "gke" else load_spec
    assert load(path)
    assert path.read_text().count("#") > 1
    assert f"wrote {path}" in capsys.readouterr().out


def test_options_replace_fields_and_keep_comments(tmp_path: Path) -> None:
    """A value that YAML would read as something else is quoted."""
    path = tmp_path / "spec.yaml"
    options = ["--project=some-project", "--store=gs://bucket/x", "--name=research"]
    assert cli.main(["init", "gke", str(path), *options]) == 0
    spec = load_gke_spec(path)
    assert (spec.project, spec.store, spec.name) == (
        "some-project",
        "gs://bucket/x",
        "research",
    )
    assert "store: gs://bucket/x  # bucket and folder for runs and data" in (
        path.read_text()
    )

    other = tmp_path / "other.yaml"
    assert cli.main(["init", "local", str(other), "--namespace", "1234"]) == 0
    assert 'namespace: "1234"' in other.read_text()
    assert load_spec(other).namespace == "1234"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gke", "--image", "x"], "a spec for gke is written with project, store"),
        (["gke", "--store", "s3://bucket"], "store"),
        (["local", "--namespace", "Not valid"], "namespace"),
    ],
)
def test_an_invalid_field_writes_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The error names it."""
    path = tmp_path / "spec.yaml"
    kind, *options = arguments

    assert cli.main(["init", kind, str(path), *options]) == 1

    assert said in capsys.readouterr().err
    assert not path.exists()


def test_a_file_that_exists_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is a folder that does not exist made."""
    path = tmp_path / "cluster.yaml"
    path.write_text("mine")

    assert cli.main(["init", "gke", str(path)]) == 1
    assert "exists already, and is not overwritten" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert cli.main(["init", "gke", str(tmp_path / "no folder" / "x.yaml")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_every_option_is_a_field_of_a_spec() -> None:
    """The command and the specs agree."""
    from dask_hpsearch.cli import init

    assert set(init._FIELDS) == {name for names in FIELDS.values() for name in names}
    assert tuple(KINDS) == init._KINDS


def test_the_file_may_come_after_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As people type it."""
    monkeypatch.chdir(tmp_path)

    assert cli.main(["init", "gke", "--project", "my-project", "own.yaml"]) == 0

    assert [one.name for one in tmp_path.iterdir()] == ["own.yaml"]
    assert load_gke_spec(tmp_path / "own.yaml").project == "my-project"
