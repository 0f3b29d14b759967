"""Builds an image on this machine, with whichever builder it has."""

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
    """Return the path of a builder: the one named, else the first there is.

    Raises
    ------
    ImageBuildError
        If there is none.
    """
    for candidate in BUILDERS if name is None else (name,):
        path = shutil.which(candidate)
        if path is not None:
            return path
    wanted = name or ", ".join(BUILDERS)
    msg = f"there is no {wanted} on this machine: install one, or build the image elsewhere"
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
        The image's name; default: the one that its content has.
    builder : str, optional
        ``buildah``, ``podman`` or ``docker``; default: the first there is.
    options : sequence of str
        Passed on to the builder.
    say : callable
        Given what the builder writes, line by line.

    Raises
    ------
    ImageBuildError
        If there is no builder, or it fails; with the last lines that it wrote.
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
    with subprocess.Popen(  # noqa: S603 (a builder, with arguments that are not a shell's)
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
        msg = f"{program} could not build {name} (exit code {process.returncode}):\n{lines}"
        raise ImageBuildError(msg)
    return name
