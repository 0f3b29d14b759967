"""A contract for import-linter: modules of a package are imported as it exports them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from importlinter import Contract, ContractCheck, fields, output

if TYPE_CHECKING:
    from grimp import ImportGraph


class ExportsContract(Contract):  # type: ignore[misc]  # untyped
    """From outside of a package, only those of its modules are imported that it exports.

    A package exports the modules (and subpackages) that its ``__init__`` names in
    ``__all__``. A module whose name begins with an underscore is its package's own.
    """

    package = fields.StringField()

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 (import-linter's)
        """Look at every import between two modules of the package."""
        del verbose
        exported: dict[str, frozenset[str]] = {}
        broken: list[tuple[str, str, str]] = []
        used: set[tuple[str, str]] = set()
        for importer in graph.modules:
            for imported in graph.find_modules_directly_imported_by(importer):
                if not imported.startswith(f"{self.package}."):
                    continue
                for package, module in packages_between(importer, imported):
                    used.add((package, module))
                    if package not in exported:
                        exported[package] = exports_of(package)
                    if module not in exported[package] or module.startswith("_"):
                        broken.append((importer, imported, package))
        # What nobody needs from outside is no export; the public face is the users'.
        idle = {
            (package, module)
            for package, modules in exported.items()
            for module in modules
            if package != self.package
            and f"{package}.{module}" in graph.modules
            and (package, module) not in used
        }
        return ContractCheck(
            kept=not broken and not idle,
            metadata={"broken": sorted(broken), "idle": sorted(idle)},
        )

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Say which import is not allowed, or which export nothing needs."""
        for importer, imported, package in check.metadata["broken"]:
            output.print_error(
                f"{importer} imports {imported}, which {package}.__all__ does not export"
            )
        for package, module in check.metadata["idle"]:
            output.print_error(
                f"{package}.__all__ exports {module}, which nothing imports"
            )


def packages_between(importer: str, imported: str) -> list[tuple[str, str]]:
    """Return each package around a module, but for those that the importer is in too.

    Returns
    -------
    list of (str, str)
        The package, and the name in it that leads to the module.
    """
    parts = imported.split(".")
    between = []
    for depth in range(2, len(parts)):
        package = ".".join(parts[:depth])
        if importer != package and not importer.startswith(f"{package}."):
            between.append((package, parts[depth]))
    return between


def exports_of(package: str) -> frozenset[str]:
    """Return the names in a package's ``__all__``, without importing it."""
    path = Path(*package.split("."), "__init__.py")
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()
