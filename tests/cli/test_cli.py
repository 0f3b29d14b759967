from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from sklearn.datasets import load_digits

from dask_hpsearch import cli
from dask_hpsearch.exceptions import NoWorkersError

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from dask_hpsearch.cli import main; sys.exit(main())",
]


def test_the_version_is_the_packages_own(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` names what is installed."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])

    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"dask-hpsearch {version('dask-hpsearch')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["demo", "--n-iter", "0"], "must be a positive integer, got 0"),
        (["demo", "--slots", "many"], "must be a positive integer, got many"),
        (["demo", "--output", "."], "must be a file, got the folder '.'"),
        (["demo", "--output", "no/such/folder.pkl"], "must be a writable path"),
    ],
)
def test_a_wrong_command_line_is_told_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing starts, and the message names the wrong part."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)

    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "help_"),
    [
        ([], "dask-hpsearch --help"),
        (["init"], "dask-hpsearch init --help"),
        (["image", "build", "--builder"], "dask-hpsearch image build --help"),
        (["image", "nonsense"], "dask-hpsearch image --help"),
    ],
)
def test_a_wrong_command_line_leads_to_the_help(
    arguments: list[str], help_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """To that of the command, if it is known."""
    with pytest.raises(SystemExit):
        cli.main(arguments)

    assert capsys.readouterr().err.endswith(f"\ntry '{help_}'\n")


def test_an_error_of_ours_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The message is enough; a traceback would bury it."""

    def command() -> int:
        msg = "no Dask worker came\n    within 10 s: start one"
        raise NoWorkersError(msg)

    assert cli._exit_code(command) == 1
    text = "no Dask worker came within 10 s: start one"
    expected = f"dask-hpsearch: {text}\n{NoWorkersError(text).help_note}\n"
    assert capsys.readouterr().err == expected


def test_an_error_that_is_not_ours_keeps_its_traceback() -> None:
    """It is a bug, and its place matters."""

    def command() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli._exit_code(command)


def test_a_reader_that_ends_early_is_no_error(tmp_path: Path) -> None:
    """As ``dask-hpsearch ... | head``."""
    closed = os.pipe()
    os.close(closed[0])

    with os.fdopen(closed[1], "w") as output:
        done = subprocess.run(
            [*COMMAND, "completion", "bash"],
            check=False,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )

    assert (done.returncode, done.stderr) == (1, "")


def test_a_broken_connection_is_no_reader_that_ends_early() -> None:
    """It keeps its traceback."""

    def command() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        cli._exit_code(command)


def test_ctrl_c_ends_with_its_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    """130, as a shell expects of what was interrupted."""

    def command() -> int:
        raise KeyboardInterrupt

    assert cli._exit_code(command) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_help_imports_neither_dask_nor_scikit_learn() -> None:
    """The command answers at once."""
    code = (
        "import sys\n"
        "from dask_hpsearch.cli import main\n"
        "try: main(['demo', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'sklearn', 'distributed', 'rich'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_demo_saves_a_search_that_scikit_learn_alone_loads(tmp_path: Path) -> None:
    """The demo runs, says what it found, and leaves a file without any trace of us."""
    path = tmp_path / "found.pkl"
    arguments = ["demo", "--n-iter", "1", "--slots", "2", "--output", str(path)]

    done = subprocess.run(
        [*COMMAND, *arguments], check=True, capture_output=True, text=True, cwd=tmp_path
    )

    assert "1 random candidates on 5 splits, 5 fits" in done.stdout
    assert f"Saved the fitted search: {path}" in done.stdout
    assert re.fullmatch(r"(Search: .*\n)*Search done: 5 fits, .*\n", done.stderr)
    load = (
        "import sys, pickle\n"
        "for name in ('dask_hpsearch', 'dask', 'distributed'): sys.modules[name] = None\n"
        "search = pickle.load(open('found.pkl', 'rb'))\n"
        "print(type(search).__module__, len(search.cv_results_['params']))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", load],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert loaded.stdout == "sklearn.model_selection._search 1\n"
    X, y = load_digits(return_X_y=True)
    assert pickle.loads(path.read_bytes()).score(X, y) > 0.9
