"""`dask-hpsearch help` explains every error and warning."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dask_hpsearch import cli, exceptions
from dask_hpsearch.cli.help import Section, find_section, read_sections

SECTIONS = read_sections()
GROUPS = [one for one in SECTIONS[1:] if one.anchor == one.group]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what the command prints."""
    assert cli.main(["help", *arguments]) == 0
    shown = capsys.readouterr()
    assert not shown.err
    return shown.out


@pytest.mark.parametrize("name", exceptions.__all__)
def test_every_error_and_warning_is_explained(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the words of its section, without the marks of links and headings."""
    text = printed(capsys, name)

    title, line, *_ = text.splitlines()
    assert (title, line) == (name, "=" * len(name))
    assert len(text.split()) > 12
    for mark in ("](", "**", "\n#"):
        assert mark not in text


@pytest.mark.parametrize("kind", [exceptions.StoreError, exceptions.TrackerWarning])
def test_the_command_of_a_note_works(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, after `Help:`."""
    error = kind("text")
    note = getattr(error, "help_note", str(error).splitlines()[-1])
    program, *arguments = note.removeprefix("Help: ").split()

    assert program == "dask-hpsearch"
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"{kind.__name__}\n")


def test_without_a_name_every_section_is_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In their order, by groups, each in a few words."""
    text = printed(capsys)

    places = [text.index(f"\n{one.title}\n") for one in GROUPS]
    assert places == sorted(places)
    for name in exceptions.__all__:
        assert f"\n  {name} " in text
    assert text.endswith("\nShow one: dask-hpsearch help NAME\n")


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.anchor)
def test_a_group_lists_its_own(
    group: Section, capsys: pytest.CaptureFixture[str]
) -> None:
    """And every one of them leads to it."""
    text = printed(capsys, group.anchor)

    own = [one.title for one in SECTIONS if one.group == group.anchor != one.anchor]
    listed = [line.split()[0] for line in text.splitlines() if line[:3].strip()]
    assert own
    assert [word for word in listed if word in exceptions.__all__] == own
    assert f"dask-hpsearch help {group.anchor}\n" in printed(capsys, own[0])


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("dataformaterror", "DataFormatError"),
        ("dask_hpsearch.exceptions.DataFormatError:", "DataFormatError"),
        ("docs/troubleshooting.md#dataformaterror", "DataFormatError"),
        ("Fits that fail", "Fits that fail"),
        ("#fits-that-fail", "Fits that fail"),
    ],
)
def test_names_are_found_as_they_are_copied(name: str, title: str) -> None:
    """From a traceback, a link or a heading."""
    found = find_section(name, SECTIONS)

    assert isinstance(found, Section)
    assert found.title == title


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        ("DatFormatError", "did you mean DataFormatError"),
        ("quota", "did you mean CloudQuotaError?"),
        ("zzzz", "list them: dask-hpsearch help\n"),
        ("", "list them: dask-hpsearch help\n"),
    ],
)
def test_a_misspelled_name_gets_the_nearest_ones(
    name: str, proposal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a wrong command line."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["help", name])

    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert f"no section {name!r}; {proposal}" in shown.err
    assert shown.err.endswith("try 'dask-hpsearch help --help'\n")


def test_links_to_other_pages_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the text; those within the page are only their text."""
    other, same = (printed(capsys, one) for one in ("SpecError", "VersionSkewWarning"))
    extras = printed(capsys, "MissingExtraError")

    assert "More in the manual: docs/install.md#extras\n" in extras
    assert "See VersionSkewError." in " ".join(same.split())
    assert "More in" not in other + same


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_lines_fit_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to a width that is read well; a single long word stays whole."""
    monkeypatch.setenv("COLUMNS", str(columns))
    text = printed(capsys)

    wide = [line for line in text.splitlines() if len(line) > min(columns, 88)]
    assert [line for line in wide if " " in line.strip()] == []


def test_help_needs_no_heavy_package() -> None:
    """It answers at once, where Dask and scikit-learn cannot be imported either."""
    heavy = ("dask", "distributed", "numpy", "sklearn", "pandas")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy}));"
        "from dask_hpsearch import cli; sys.exit(cli.main(['help', 'StoreError']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("StoreError\n==========\n\n")
