"""What can be done with a run that has stopped or failed: its URL and the next command."""

from __future__ import annotations

import contextlib

from dask_hpsearch.safe_text import message_of


def resume_call(url: str, options: str = "") -> str:
    """Write the call that goes on with a run, from any process."""
    if url.startswith("gs:"):  # beside its data, if that is possible
        options = f"client, {options}" if options else "client"
    return f"SearchRun.attach({url!r}).resume({options})"


def to_go_on(url: str, options: str = "") -> str:
    """Say where a run is, and how it goes on.

    Parameters
    ----------
    url : str
        The run's.
    options : str
        Arguments of ``resume``, as they are written.
    """
    if url.startswith("memory:"):  # another process could not open it
        return f"the run is {url}"
    return f"{resume_call(url, options)} goes on"


def to_end(url: str) -> str:
    """Say how a run that goes on is found again, and ended."""
    run = f"SearchRun.attach({url!r})"
    return (
        f"{run} finds it; its stop() ends it with what has finished, its cancel() "
        "without a result"
    )


def note_how_to_go_on(error: BaseException, url: str) -> None:
    """Add to an error where its run is and how it goes on, unless it says so already."""
    said = [message_of(error), *getattr(error, "__notes__", ())]
    if not any(url in text for text in said):
        with contextlib.suppress(Exception):  # a class of the user's own
            error.add_note(to_go_on(url))
