"""Completion scripts know every command and option."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch import cli
from dask_hpsearch.cli.completion import _commands, script

if TYPE_CHECKING:
    from pathlib import Path

BASH = shutil.which("bash") or "bash"
COMMANDS = list(_commands(cli._parser()))
COMPLETE = """
source completion.bash
COMP_WORDS=({words})
COMP_CWORD={at}
_dask_hpsearch
printf '%s\\n' "${{COMPREPLY[@]}}"
complete -p dask-hpsearch
"""


def completed(folder: Path, *words: str) -> list[str]:
    """Return what bash completes the last word to."""
    (folder / "completion.bash").write_text(script("bash", cli._parser()))
    quoted = " ".join(f"'{word}'" for word in ("dask-hpsearch", *words))
    found = subprocess.run(
        [BASH, "--norc", "-eu", "-c", COMPLETE.format(words=quoted, at=len(words))],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    assert not found.stderr
    *replies, registered = found.stdout.splitlines()
    assert registered.endswith("-F _dask_hpsearch dask-hpsearch")
    return [one for one in replies if one]


@pytest.mark.parametrize(
    ("words", "replies"),
    [
        (["re"], ["resume"]),
        (["resume", "--max-"], ["--max-time", "--max-cost"]),
        (["resume", "some-run", "--sch"], ["--scheduler"]),
        (["image", "b"], ["build"]),
        (["image", "build", "--bui"], ["--builder"]),
        (["completion", ""], ["bash", "zsh", "fish", "--help"]),
        (["init", "g"], ["gke"]),
        (["help", "NoWork"], ["NoWorkersError"]),
        (["promote", "run", "--holdout", "resume", "y.npy", "--to"], ["--to"]),
        (["resume", "./"], []),
    ],
)
def test_bash_completes(words: list[str], replies: list[str], tmp_path: Path) -> None:
    """Commands, subcommands, choices and options; file names are left to bash."""
    assert completed(tmp_path, *words) == replies


def test_bash_completes_all_commands(tmp_path: Path) -> None:
    """At the beginning."""
    found = completed(tmp_path, "")

    expected = {
        one.path.removeprefix("/") for one in COMMANDS if one.path.count("/") == 1
    }
    assert {one for one in found if not one.startswith("-")} == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_have_every_command_and_option(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the command prints them."""
    assert cli.main(["completion", shell]) == 0
    text = capsys.readouterr().out

    for command in COMMANDS:
        assert command.path in text
        for word in (*command.words, *command.options):
            assert word.text.lstrip("-") in text
    assert "%(" not in text


def test_zsh_gets_no_empty_description() -> None:
    """It would show a line with none."""
    text = script("zsh", cli._parser())

    assert "'gke'" in text
    assert ":'" not in text


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("dask-hpsearch re", ["resume"]),
        ("dask-hpsearch init ", ["gke", "kubernetes", "local"]),
        ("dask-hpsearch image build --b", ["--builder"]),
        ("dask-hpsearch resume some-run --sch", ["--scheduler"]),
    ],
)
def test_fish_completes(line: str, replies: list[str], tmp_path: Path) -> None:
    """Where it is installed."""
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed")
    path = tmp_path / "completion.fish"
    path.write_text(script("fish", cli._parser()))

    found = subprocess.run(
        [fish, "--no-config", "-c", f"source {path}; complete -C '{line}'"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
    )

    assert [one.split("\t")[0] for one in found.stdout.splitlines()] == replies


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_valid(shell: str, tmp_path: Path) -> None:
    """Where the shell is installed."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(script(shell, cli._parser()))

    subprocess.run([program, "-n", str(path)], check=True)
