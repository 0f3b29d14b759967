"""The commented specs that come with the package, for ``dask-hpsearch init``."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dask_hpsearch.config.load import load_gke_spec, load_spec
from dask_hpsearch.exceptions import SpecError, SpecFileError
from dask_hpsearch.localfs.atomic import create_whole

# Files of cluster_specs/, by what they are for.
KINDS = {
    "local": "local-lab.yaml",
    "kubernetes": "spot-nodes.yaml",
    "gke": "gke-spot.yaml",
}
# Fields that stand in a spec's first column, once.
FIELDS = {
    "local": ("image", "namespace"),
    "kubernetes": ("image", "namespace"),
    "gke": ("project", "store", "location", "name"),
}


def write_spec(kind: str, path: Path, fields: dict[str, str]) -> None:
    """Write a commented spec to a new file.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    path : Path
    fields : dict of str to str
        Values of some of `FIELDS`; the others keep those of the example.

    Raises
    ------
    SpecError
        If a value is invalid, or of a field that such a spec does not have.
    SpecFileError
        If the file exists, or cannot be written.
    """
    text = _file(KINDS[kind]).read_text(encoding="utf-8")
    for name, value in fields.items():
        if name not in FIELDS[kind]:
            problem = (
                f"{name}: a spec for {kind} is written with {', '.join(FIELDS[kind])}"
            )
            raise SpecError(str(path), [problem])
        text = _replaced(text, name, value)
    load = load_gke_spec if kind == "gke" else load_spec
    load(_parsed(text))  # names the invalid values
    try:
        created = create_whole(path, text.encode())
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror or error}): name another file"
        raise SpecFileError(msg) from error
    if not created:
        msg = f"{path} exists already, and is not overwritten: name a new file"
        raise SpecFileError(msg)


def _replaced(text: str, name: str, value: str) -> str:
    """Replace the value of a field, and keep the comment behind it."""
    shown = _as_yaml(value)

    def line(found: re.Match[str]) -> str:
        return f"{name}: {shown}{found[2]}"

    pattern = rf"^{name}: (\S+)([^\n]*)$"
    return re.sub(pattern, line, text, count=1, flags=re.MULTILINE)


def _as_yaml(value: str) -> str:
    """Return a text as YAML, in quotes if it would be read as something else."""
    import yaml

    try:
        is_plain = yaml.safe_load(value) == value
    except yaml.YAMLError:
        is_plain = False
    return value if is_plain else json.dumps(value)


def _parsed(text: str) -> dict[str, object]:
    import yaml

    found: dict[str, object] = yaml.safe_load(text)
    return found


def _file(name: str) -> Path:
    """Return a spec's path: beside this module (in a wheel), or in the repository."""
    here = Path(__file__).parent
    for folder in (here / "specs", here.parents[1] / "cluster_specs"):
        if (folder / name).is_file():
            return folder / name
    problem = "this installation of dask_hpsearch has no such spec: install it again"
    raise SpecError(name, [problem])
