"""Names of modules in strings lead somewhere, and what is public can be imported."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import dask_hpsearch
from dask_hpsearch import exceptions

PACKAGE = Path(dask_hpsearch.__file__).parent
NAME = re.compile(r"dask_hpsearch(\.[A-Za-z_]\w*)+")
LOGGERS = {"dask_hpsearch.fits"}


def strings_that_name_modules() -> set[str]:
    """Return what the package's strings name: programs, preloads, routes, exports."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(
                    match[0]
                    for match in NAME.finditer(node.value)
                    if match[0] == node.value
                )
    return found - LOGGERS


def resolve(name: str) -> object:
    """Import a module, or get an attribute of one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def test_there_are_such_strings() -> None:
    """The workers' preloads, the programs of slots, drivers and pods, the exports."""
    assert len(strings_that_name_modules()) > 12


@pytest.mark.parametrize("name", sorted(strings_that_name_modules()))
def test_a_string_that_names_a_module_leads_to_it(name: str) -> None:
    """A module that has moved takes its name in strings along."""
    assert resolve(name) is not None


def test_modules_that_are_named_in_docstrings_exist() -> None:
    """Docstrings refer to modules by their full names."""
    missing = []
    for path in PACKAGE.rglob("*.py"):
        for match in NAME.finditer(path.read_text("utf-8")):
            try:
                resolve(match[0])
            except (ImportError, AttributeError):
                missing.append(f"{path.relative_to(PACKAGE)}: {match[0]}")
    assert [one for one in missing if not one.endswith(tuple(LOGGERS))] == []


@pytest.mark.parametrize("name", dask_hpsearch.__all__)
def test_what_is_exported_is_there(name: str) -> None:
    """Each name of the top level is found."""
    assert getattr(dask_hpsearch, name) is not None


def test_all_errors_are_exported() -> None:
    """`dask_hpsearch.exceptions` has them all; the common ones are at the top too."""
    classes = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and value.__module__ == exceptions.__name__
    }
    assert classes == set(exceptions.__all__)
    for name in classes & set(dask_hpsearch.__all__):
        assert getattr(dask_hpsearch, name) is getattr(exceptions, name)


def test_the_top_level_has_few_loose_modules() -> None:
    """A dozen at most: the others are in the package that owns them."""
    assert len(list(PACKAGE.glob("*.py"))) <= 12
