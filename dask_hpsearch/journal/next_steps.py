"""The next step after a run has stopped or failed: the call that resumes or ends it."""

from __future__ import annotations

import contextlib

from dask_hpsearch.safe_text import message_of


def resume_call(url: str, options: str = "") -> str:
    """Return the call that resumes a run from any process."""
    if url.startswith("gs:"):  # the driver can be a Job near the data
        options = f"client, {options}" if options else "client"
    return f"SearchRun.attach({url!r}).resume({options})"


def to_resume(url: str, options: str = "") -> str:
    """Return where a run is and how to resume it.

    Parameters
    ----------
    url : str
        Of the run.
    options : str
        Arguments of ``resume``, as source code.
    """
    if url.startswith("memory:"):  # another process could not open it
        return f"the run is {url}"
    return f"resume it with {resume_call(url, options)}"


def to_end(url: str) -> str:
    """Return how to find and end a run that continues."""
    run = f"SearchRun.attach({url!r})"
    return (
        f"{run} finds it: stop() ends it with the complete candidates, cancel() without a "
        "result"
    )


def add_next_step(error: BaseException, url: str) -> None:
    """Add a note to an error that says how to resume its run, unless the error does."""
    texts = [message_of(error), *getattr(error, "__notes__", ())]
    if any(url in text for text in texts):
        return
    step = to_resume(url)
    if not isinstance(error, KeyboardInterrupt) and not url.startswith("memory:"):
        # A run keeps its search and data: with a wrong parameter, it would fail again.
        step += ", once the cause is removed; a corrected search is a new run"
    with contextlib.suppress(Exception):  # the class may be the user's
        error.add_note(step)
