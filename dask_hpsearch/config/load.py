"""Reads and validates specs; one error names all invalid fields."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from dask_hpsearch.config.cluster import ClusterSpec
from dask_hpsearch.config.gke import GKESpec
from dask_hpsearch.exceptions import SpecError
from dask_hpsearch.security.secret_scan import secret_in_address, secret_in_variable

# Fields that would give a pod rights over its node. No spec has them; the error says that
# they are refused, not that they are unknown.
_REFUSED = {
    "privileged": "pods run without privileges",
    "allowprivilegeescalation": "pods run without privileges",
    "capabilities": "pods run without capabilities",
    "securitycontext": "dask_hpsearch sets the security context of pods",
    "runasuser": "pods run as the image's own user, not as root",
    "hostpath": "pods have no access to their node's file system",
    "hostnetwork": "pods have their own network",
    "hostpid": "pods have no access to their node's processes",
    "hostipc": "pods share no memory with their node",
    "volumes": "pods have the volumes that dask_hpsearch gives them",
    "limits": "limits equal requests: give cpu and memory",
    "requests": "limits equal requests: give cpu and memory",
}
_LONGEST_VALUE = 60
Spec = TypeVar("Spec", bound=BaseModel)


def load_spec(
    source: str | Path | Mapping[str, Any] | ClusterSpec, **changes: Any
) -> ClusterSpec:
    """Read and validate the spec of a Dask cluster.

    Parameters
    ----------
    source : str, Path, mapping or ClusterSpec
        A YAML file, or the content of one.
    **changes
        Values that replace the file's, as ``image=...``.

    Returns
    -------
    ClusterSpec

    Raises
    ------
    SpecError
        If the file cannot be read, or a field is invalid; all of them are named.
    """
    name, content = _content(source)
    return _checked(ClusterSpec, name, content | changes)


def load_gke_spec(
    source: str | Path | Mapping[str, Any] | GKESpec, **changes: Any
) -> GKESpec:
    """Read and validate the spec of a GKE cluster.

    Parameters
    ----------
    source : str, Path, mapping or GKESpec
        A YAML file, or the content of one. Modules that a file names are relative to its
        folder.
    **changes
        Values that replace the file's, as ``project=...``.

    Returns
    -------
    GKESpec

    Raises
    ------
    SpecError
        If the file cannot be read, or a field is invalid; all of them are named.
    """
    name, content = _content(source)
    spec = _checked(GKESpec, name, content | changes)
    if isinstance(source, (GKESpec, Mapping)) or not spec.dask.modules:
        return spec
    folder = Path(source).resolve().parent
    modules = tuple(str(folder / module) for module in spec.dask.modules)
    dask = spec.dask.model_copy(update={"modules": modules})
    return spec.model_copy(update={"dask": dask})


def _content(
    source: str | Path | Mapping[str, Any] | BaseModel,
) -> tuple[str, dict[str, Any]]:
    if isinstance(source, BaseModel):
        return "the spec", source.model_dump(exclude_unset=True)
    if isinstance(source, Mapping):
        return "the spec", dict(source)
    content = _read(Path(source))
    if not isinstance(content, dict):
        problem = f"must be a mapping of fields, got {_shown(content)}"
        raise SpecError(str(source), [problem])
    return str(source), content


def _checked(model: type[Spec], name: str, content: dict[str, Any]) -> Spec:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise SpecError(name, _problems(error, model)) from None


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), [f"cannot be read: {error}"]) from error
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SpecError(str(path), [f"is not valid YAML: {reason}"]) from error


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Refuses duplicate fields, of which YAML's own loader keeps the last."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 (yaml's)
    ) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            where = node.start_mark
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(twice)} is given twice", where
            )
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


def _problems(error: ValidationError, spec: type[BaseModel]) -> list[str]:
    """Describe every invalid field in a line: where, what is allowed, which value."""
    found: dict[str, str] = {}
    for one in error.errors():
        path = ".".join(str(part) for part in one["loc"] if part != "[key]") or "spec"
        found.setdefault(path, _problem(path, one, spec))
    return list(found.values())


def _problem(path: str, error: Any, spec: type[BaseModel]) -> str:
    kind, value = error["type"], error["input"]
    owner, allowed = _field_of(error["loc"], spec)
    if kind == "extra_forbidden":
        name = str(error["loc"][-1])
        reason = _REFUSED.get(name.lower().replace("_", ""))
        if reason:
            return f"{path} is refused: {reason}"
        known = sorted(owner.model_fields)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{path} is not a field: {hint}the fields are {', '.join(known)}"
    if kind == "missing":
        return f"{path} is missing: it must be {allowed}"
    reason = ""
    if kind == "value_error":
        reason = error["msg"].removeprefix("Value error, ")
        if isinstance(value, (dict, BaseModel)):  # a rule on several fields
            return reason if path == "spec" else f"{path}: {reason}"
        reason = f" ({reason})"
    return f"{path} must be {allowed}, got {_shown(value, path)}{reason}"


def _field_of(
    location: tuple[Any, ...], model: type[BaseModel]
) -> tuple[type[BaseModel], str]:
    """Return the model that has the last field of a location, and what that allows."""
    allowed = "fields and values"
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        allowed = field.description or allowed
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return model, allowed


def _shown(value: Any, path: str = "") -> str:
    """Quote a value, unless it may be a secret."""
    text, name = repr(value), path.rpartition(".")[2]
    secret = secret_in_variable(name, str(value)) or secret_in_address(str(value))
    if secret is not None or (name == "environment" and value):
        return "a value that may be a secret"
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 1] + "…"
    return text
