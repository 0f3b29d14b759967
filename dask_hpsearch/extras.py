"""Which extra brings a package that is not installed, and the command that installs it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Top-level packages that dask_hpsearch itself imports, by extra.
PACKAGES = {
    "gcp": ("aiohttp", "gcsfs", "google", "google_crc32c", "grpc"),
    "tables": ("pandas", "pyarrow"),
    "kubernetes": ("dask_kubernetes", "httpx", "kr8s", "packaging", "pydantic", "yaml"),
    "bayes": ("skopt",),
    "dask-ml": ("dask_ml",),
    "plots": ("matplotlib",),
}


def extra_of(error: ImportError) -> str | None:
    """Return the extra that brings what could not be imported; None if none does."""
    package = (error.name or "").split(".")[0]
    found = [extra for extra, packages in PACKAGES.items() if package in packages]
    return found[0] if found else None


def install_command(extra: str) -> str:
    """Return the command that installs an extra; quoted, for a shell reads brackets."""
    return f'pip install "dask-hpsearch[{extra}]"'


def missing_extra(error: ImportError, *, what: str) -> MissingExtraError | None:
    """Make the error of a package that an extra would bring; None for any other."""
    extra = extra_of(error)
    if extra is None:
        return None
    package = (error.name or "").split(".")[0]
    return MissingExtraError(
        f"{what} needs the package {package!r}, which is not installed: {install_command(extra)}",
        name=error.name,
    )


@contextmanager
def map_import_errors(what: str) -> Iterator[None]:
    """Say which extra is missing for something, if one is.

    Raises
    ------
    MissingExtraError
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        missing = missing_extra(error, what=what)
        if missing is None:
            raise
        raise missing from error
