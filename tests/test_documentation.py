"""Documents name files that exist, and use the words of the field."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PACKAGE = ROOT / "dask_hpsearch"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DECISIONS = ROOT / "docs" / "decisions"
RECORDS = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
MANUAL = [
    path
    for path in (ROOT / "docs").rglob("*.md")
    if not path.is_relative_to(ROOT / "docs" / "_build")
]
DOCUMENTS = sorted(
    [
        *(
            ROOT / name
            for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
        ),
        *MANUAL,
        *(path for path in (ROOT / "benchmarks").glob("*.md")),
        *(
            path
            for folder in ("cluster_specs", "image", "examples", "notebooks")
            for path in (ROOT / folder).rglob("*")
            if path.suffix in {".md", ".yaml", ".py", ".ipynb", ""} and path.is_file()
        ),
    ]
)
# Documents whose paths are relative to the repository or the package.
WITH_PATHS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *MANUAL,
]
# Files that documents name, and that are in neither the repository nor the package.
ELSEWHERE = {
    "my_estimators.py": "the reader's own",
    "manifest.json": "of a run's folder",
    "card.json": "of a champion's folder",
    "champions/00000002.json": "of a champion's folder",
    "champions/00000003.json": "of a champion's folder",
    "champions/NUMBER.json": "of a champion's folder",
    "prices.toml": "beside the module whose row names it",
    "jobs.py": "a name of an earlier layout",
    "modules.py": "a name of an earlier layout",
}


class Allowed(NamedTuple):
    """Where an old word may stay."""

    path: str
    word: str
    reason: str
    line: str = ""  # a part of the line; any line of the file without it


# An old word, and what finds it, in names of Python too.
OLD_WORDS = {
    "nursery": r"nursery",
    "pardons": r"pardon",
    "wishes": r"(?<![a-z])wish(es)?(?![a-z])",
    "black box": r"black[ _-]?box",
    "patience": r"patience",
    "prefixes": r"(?<![a-z])prefixes(?![a-z])",
    "told": r"(?<![a-z])told(?![a-z])",
    "ground": r"(?<![a-z])grounds?(?![a-z])",
    "lasting": r"(?<![a-z])lasting(?![a-z])",
}
UNCLEAR = {
    "somebody": r"\bsomebody\b",
    "whoever": r"\bwhoever\b",
    "of ours": r"\bof ours\b",
    "all that": r"\ball that\b",
}
ALLOWED_IN_DOCUMENTS = [
    Allowed(
        "CHANGELOG.md", "prefixes", "the earlier name of a parameter", "share_steps"
    ),
    Allowed(
        "docs/decisions/0012-bayes-explores-then-scikit-learn-builds.md",
        "told",
        "Bayes' ask and tell",
    ),
    *(
        Allowed(path, "patience", "a parameter of DaskSearchCV")
        for path in (
            "CHANGELOG.md",
            "docs/architecture.md",
            "docs/guide/limits.md",
            "docs/decisions/0049-racing.md",
        )
    ),
]


def text_of(path: Path) -> str:
    """Return a document's text; of a notebook, that of its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def occurrences(
    paths: Iterable[Path], words: dict[str, str], allowed: list[Allowed]
) -> tuple[list[str], list[Allowed]]:
    """Find words where they are not allowed; return them, and the allowances used."""
    found, used = [], []
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        for number, line in enumerate(text_of(path).splitlines(), 1):
            for word, pattern in words.items():
                if not re.search(pattern, line, flags=re.IGNORECASE):
                    continue
                reasons = [
                    one
                    for one in allowed
                    if name.startswith(one.path)
                    and one.word == word
                    and one.line in line
                ]
                used += reasons
                if not reasons:
                    found.append(f"{name}:{number}: {word}: {line.strip()}")
    return found, used


def modules() -> set[str]:
    """Paths of the package's modules, relative to it."""
    return {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}


def modules_of_the_tables() -> Iterator[str]:
    """Modules that the tables of docs/architecture.md name, each under its package."""
    package = None
    for line in text_of(ARCHITECTURE).splitlines():
        if heading := re.fullmatch(r"### `(.+)/`", line):
            package = "" if heading[1] == PACKAGE.name else f"{heading[1]}/"
        elif line.startswith("#"):
            package = None
        elif package is not None and (row := re.match(r"\| `(\w+\.py)` \| \S", line)):
            yield package + row[1]


def test_architecture_names_every_module_once() -> None:
    """Each has a row in its package's table, and no row is of a module that is gone.

    An ``__init__.py`` needs a row only if it holds more than its package's purpose.
    """
    named = Counter(modules_of_the_tables())

    assert set(named) - modules() == set()
    assert {name for name in modules() - set(named) if "__init__" not in name} == set()
    assert [name for name, times in named.items() if times > 1] == []


def test_architecture_shows_the_layers_of_the_contract() -> None:
    """Row by row, in the same order, as import-linter holds them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["id"] == "layers")
    _, _, text = text_of(ARCHITECTURE).partition("\n## Layers\n")
    rows = re.findall(
        r"^\| (`[^|]+`) \|", text.partition("\n## ")[0], flags=re.MULTILINE
    )

    shown = [set(re.findall(r"`(\w+)`", row)) for row in rows]

    assert shown == [set(re.findall(r"\w+", layer)) for layer in layers]


def test_files_that_documents_name_exist() -> None:
    """By a path from the repository or the package; one of a table by its name alone."""
    names = {name.rpartition("/")[2] for name in modules()} | set(ELSEWHERE)

    missing = [
        (path.name, name)
        for path in WITH_PATHS
        for name in re.findall(r"`([\w./-]+\.(?:py|toml|txt|json))`", text_of(path))
        if not any((top / name).exists() for top in (ROOT, PACKAGE))
        and name not in names
    ]

    assert missing == []


def test_folders_that_documents_name_exist() -> None:
    """Packages, and folders of the repository."""
    missing = [
        (path.name, name)
        for path in WITH_PATHS
        for name in re.findall(r"`(\w[\w/]*)/`", text_of(path))
        if not any((top / name).is_dir() for top in (ROOT, PACKAGE))
    ]

    assert missing == []


def test_modules_that_documents_name_exist() -> None:
    """With their dots, as ``python -m`` takes them."""
    known = {name.removesuffix(".py").replace("/", ".") for name in modules()}
    known |= {name.removesuffix(".__init__") for name in known}
    named = {
        (path.name, dotted)
        for path in DOCUMENTS
        for dotted in re.findall(
            r"(?:python -m|from|import) dask_hpsearch\.([\w.]+)", text_of(path)
        )
    }

    assert {one for one in named if one[1].rstrip(".") not in known} == set()


def test_links_lead_to_files_and_headings() -> None:
    """Those inside the repository, with the headings that they name."""
    broken = []
    for path in (one for one in DOCUMENTS if one.suffix in {".md", ".ipynb"}):
        for link in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
            if "://" in link:
                continue
            file, _, heading = link.partition("#")
            target = path.parent / file if file else path
            if not target.exists() or (heading and heading not in headings(target)):
                broken.append((path.name, link))

    assert broken == []


def headings(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", text_of(path), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found
    }


def test_each_decision_has_a_number_of_its_own() -> None:
    """The number of its file is that of its title."""
    numbers = Counter(path.name.partition("-")[0] for path in RECORDS)
    titles = [text_of(path).partition(":")[0] for path in RECORDS]

    assert [number for number, times in numbers.items() if times > 1] == []
    assert titles == [f"# {path.name.partition('-')[0]}" for path in RECORDS]


def test_the_index_of_decisions_is_complete() -> None:
    """A row for each record, in their order, with its title."""
    rows = re.findall(
        r"^\| \[(\d+)\]\(([^)]+)\) \| (.+?) \| \w+",
        text_of(DECISIONS / "README.md"),
        flags=re.MULTILINE,
    )

    records = [
        (path.name.partition("-")[0], path.name, title_of(path)) for path in RECORDS
    ]

    assert rows == records


def title_of(record: Path) -> str:
    """Return the title of a decision, without its number."""
    return text_of(record).splitlines()[0].partition(": ")[2]


def test_documents_use_the_words_of_the_field() -> None:
    """No former name of a thing, and no unclear phrase."""
    found, used = occurrences(DOCUMENTS, OLD_WORDS | UNCLEAR, ALLOWED_IN_DOCUMENTS)

    assert found == []
    assert set(used) == set(ALLOWED_IN_DOCUMENTS)


# Old words that the package keeps, and why.
ALLOWED_IN_PACKAGE = [
    Allowed("dask_hpsearch/strategies/", "told", "Bayes' ask and tell"),
    Allowed(
        "dask_hpsearch/recorder/", "told", "Bayes' ask and tell", "a strategy was told"
    ),
    Allowed("dask_hpsearch/recorder/", "told", "Bayes' ask and tell", "_journal.told("),
    Allowed("dask_hpsearch/journal/", "told", "Bayes' ask and tell", "def told("),
    Allowed(
        "dask_hpsearch/journal/", "told", "Bayes' ask and tell", "a strategy was told"
    ),
    Allowed(
        "dask_hpsearch/execution/settings.py",
        "prefixes",
        "a key in the manifests of earlier versions",
        '"share_prefixes"',
    ),
    Allowed(
        "dask_hpsearch/journal/events.py",
        "patience",
        "a key in the journals of earlier versions",
    ),
    *(
        Allowed(f"dask_hpsearch/{path}.py", "patience", "a parameter of DaskSearchCV")
        for path in (
            "cli/runs",
            "execution/early_ends",
            "execution/fit",
            "execution/fitted",
            "execution/settings",
            "live/html",
            "progress/text",
            "recorder/standings",
            "runs/launch/launch",
            "runs/run",
            "runs/submit",
            "search/estimator",
        )
    ),
]


def test_the_package_uses_the_words_of_the_field() -> None:
    """No module keeps a name that the package once had for a thing, but for a reason."""
    paths = [PACKAGE / name for name in sorted(modules())]

    found, used = occurrences(paths, OLD_WORDS, ALLOWED_IN_PACKAGE)

    assert found == []
    assert set(used) == set(ALLOWED_IN_PACKAGE)
