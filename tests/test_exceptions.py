"""Errors name the command for their help, beside their message."""

from __future__ import annotations

import pickle
import traceback
import warnings
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch import exceptions
from dask_hpsearch.exceptions import (
    HPSearchError,
    HPSearchWarning,
    SpecError,
    StoreError,
)
from dask_hpsearch.raised_errors import decode_error, encode_error, in_words
from tests.processes import script

if TYPE_CHECKING:
    from pathlib import Path

ERRORS = [
    one
    for one in (getattr(exceptions, name) for name in exceptions.__all__)
    if issubclass(one, HPSearchError)
]
WARNINGS = [
    one
    for one in (getattr(exceptions, name) for name in exceptions.__all__)
    if issubclass(one, Warning)
]
BY_NAME = {"argvalues": ERRORS, "ids": lambda error: error.__name__}


def made(kind: type[HPSearchError]) -> HPSearchError:
    """Make an error of a class."""
    return SpecError("spec.yaml", ["a problem"]) if kind is SpecError else kind("text")


@pytest.mark.parametrize("kind", **BY_NAME)
def test_an_error_names_the_command_for_its_help_beside_its_message(
    kind: type[HPSearchError],
) -> None:
    """A traceback shows both; the message alone stays as it was."""
    error = made(kind)

    assert error.help_note == f"Help: dask-hpsearch help {kind.__name__}"
    assert error.help_note not in str(error)
    shown = "".join(traceback.format_exception(error))
    assert shown.count(error.help_note) == 1


@pytest.mark.parametrize("kind", WARNINGS, ids=lambda kind: kind.__name__)
def test_a_warning_names_the_command_for_its_help_where_it_is_shown(
    kind: type[HPSearchWarning],
) -> None:
    """Once, after its text; a filter by the beginning of the text still finds it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("half of it", kind, stacklevel=1)
        warnings.filterwarnings("ignore", message="the other half$", category=kind)
        warnings.warn("the other half", kind, stacklevel=1)

    (one,) = caught
    shown = warnings.formatwarning(one.message, one.category, one.filename, one.lineno)
    assert f"{kind.__name__}: half of it\nHelp: dask-hpsearch help " in shown
    assert shown.count(f"help {kind.__name__}\n") == 1
    assert pickle.loads(pickle.dumps(kind("text"))).args == ("text",)


def test_every_class_is_an_error_or_a_warning_with_a_section() -> None:
    """There is no third kind."""
    assert len(ERRORS) + len(WARNINGS) == len(exceptions.__all__)
    assert all(issubclass(one, HPSearchWarning) for one in WARNINGS)


@pytest.mark.parametrize("kind", **BY_NAME)
def test_the_note_stays_with_an_error_between_processes(
    kind: type[HPSearchError],
) -> None:
    """Once, by pickle and as a slot sends it."""
    error = made(kind)

    for again in (
        pickle.loads(pickle.dumps(error)),
        decode_error(encode_error(error), in_words(error)),
    ):
        assert type(again) is kind
        assert str(again) == str(error)
        assert again.__notes__.count(error.help_note) == 1


def test_other_notes_stay_with_it() -> None:
    """In their order."""
    error = StoreError("no disk")
    error.add_note("the run continues")

    again = pickle.loads(pickle.dumps(error))

    assert again.__notes__ == [error.help_note, "the run continues"]


def test_an_error_of_the_packages_own_names_that_of_its_public_base() -> None:
    """There is no section for a class that users do not see."""

    class InnerError(StoreError):
        pass

    assert InnerError("text").help_note == StoreError("text").help_note


def test_an_error_in_the_text_of_another_brings_no_second_note() -> None:
    """The other has one itself; notes of other kinds are part of the text."""
    error = StoreError("no disk")
    error.add_note("on the worker at node-1")

    assert in_words(error).splitlines() == [
        "dask_hpsearch.exceptions.StoreError: no disk",
        "on the worker at node-1",
    ]


def test_a_script_that_fails_ends_with_the_note(tmp_path: Path) -> None:
    """Python prints it after the message."""
    code = "from dask_hpsearch import SearchRun\nSearchRun.attach('nothing-here')"

    with script(code, tmp_path) as process:
        _, errors = process.communicate(timeout=60)

    *_, message, note = errors.strip().splitlines()
    assert message.startswith("dask_hpsearch.exceptions.RunNotFoundError: no run at")
    assert note == "Help: dask-hpsearch help RunNotFoundError"


def test_the_command_shows_the_note(tmp_path: Path) -> None:
    """In a line of its own."""
    code = "from dask_hpsearch.cli import main\nraise SystemExit(main(['show', 'nothing']))"

    with script(code, tmp_path) as process:
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    message, note = errors.splitlines()
    assert message.startswith("dask-hpsearch: no run at")
    assert note == "Help: dask-hpsearch help RunNotFoundError"
