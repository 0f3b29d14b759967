"""The extras of dask-hpsearch: which one a missing package belongs to."""

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
    "optuna": ("optuna", "optuna_integration"),
    "plots": ("matplotlib",),
    "widgets": ("anywidget",),
    "dashboard": ("bokeh", "tornado"),
    "mlflow": ("mlflow",),
}


def extra_of(error: ImportError) -> str | None:
    """Return the extra that installs the missing package; None if none does."""
    package = (error.name or "").split(".")[0]
    found = [extra for extra, packages in PACKAGES.items() if package in packages]
    return found[0] if found else None


def install_command(extra: str) -> str:
    """Return the command that installs an extra; quoted, since shells read brackets."""
    return f'pip install "dask-hpsearch[{extra}]"'


def missing_extra(error: ImportError, *, what: str) -> MissingExtraError | None:
    """Make the error of a package that an extra installs; None for any other package."""
    extra = extra_of(error)
    if extra is None:
        return None
    package = (error.name or "").split(".")[0]
    return MissingExtraError(
        f"{what} needs the package {package!r}, which is not installed: run "
        f"{install_command(extra)}",
        name=error.name,
    )


@contextmanager
def map_import_errors(what: str) -> Iterator[None]:
    """Turn the ImportError of a package in an extra into a `MissingExtraError`.

    Parameters
    ----------
    what : str
        Names in the error what needs the package.

    Raises
    ------
    MissingExtraError
        Names the package and the command that installs it.
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
