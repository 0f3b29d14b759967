"""An error that ends a run says how to go on."""

from __future__ import annotations

import pytest

from dask_hpsearch.journal.next_steps import add_next_step

URL = "file:///store/runs/1"
CALL = f"resume it with SearchRun.attach({URL!r}).resume()"


@pytest.mark.parametrize(
    ("error", "url", "note"),
    [
        (
            ValueError("no such parameter"),
            URL,
            f"{CALL}, once the cause is removed; a corrected search is a new run",
        ),
        (KeyboardInterrupt(), URL, CALL),
        (ValueError("no"), "memory://here/runs/1", "the run is memory://here/runs/1"),
    ],
    ids=["error", "Ctrl-C", "memory"],
)
def test_an_error_gets_the_next_step(error: BaseException, url: str, note: str) -> None:
    """A run keeps its search: what is wrong in it stays wrong when it is resumed."""
    add_next_step(error, url)

    assert error.__notes__ == [note]


def test_an_error_that_names_its_run_gets_none() -> None:
    """It has its own way out."""
    error = ValueError(f"the run at {URL} is damaged")

    add_next_step(error, URL)

    assert not hasattr(error, "__notes__")
