"""Builds an image on this machine, with an installed builder."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections import deque
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import ImageBuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dask_hpsearch.images.context import Context

BUILDERS = ("buildah", "podman", "docker")
_LAST_LINES = 15
_logger = logging.getLogger(__name__)


def find_builder(name: str | None = None) -> str:
    """Return the path of a builder; default: the first installed one.

    Raises
    ------
    ImageBuildError
        If there is none.
    """
    for candidate in BUILDERS if name is None else (name,):
        path = shutil.which(candidate)
        if path is not None:
            return path
    names = name or ", ".join(BUILDERS)
    msg = f"there is no {names} on this machine: install one, or build the image elsewhere"
    raise ImageBuildError(msg)


def build(
    context: Context,
    *,
    tag: str | None = None,
    builder: str | None = None,
    options: Sequence[str] = (),
    say: Callable[[str], None] = _logger.info,
) -> str:
    """Build an image, and return its name.

    Parameters
    ----------
    context : Context
    tag : str, optional
        The image's name; default: derived from its content.
    builder : str, optional
        ``buildah``, ``podman`` or ``docker``; default: the first installed one.
    options : sequence of str
        Passed to the builder.
    say : callable
        Given each line of the builder's output.

    Raises
    ------
    ImageBuildError
        If there is no builder, or it fails; with the last lines of its output.
    """
    program = find_builder(builder)
    name = tag or context.tag
    command = [
        *(program, "build", "--tag", name),
        *("--build-arg", f"PYTHON_VERSION={context.python}"),
        *options,
        str(context.folder),
    ]
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(  # noqa: S603 (no shell)
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            last.append(line.rstrip())
            say(line.rstrip())
    if process.returncode:
        lines = "\n".join(last)
        msg = f"{program} failed to build {name} (exit code {process.returncode}):\n{lines}"
        raise ImageBuildError(msg)
    return name
