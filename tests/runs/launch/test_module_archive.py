"""Which modules go along with a run: the user's own that it needs, and no others."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING

import cloudpickle
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import SecretFoundError
from dask_hpsearch.runs.create import Work, create_run
from dask_hpsearch.runs.launch.module_archive import needed_modules, store_modules
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers
from tests.images.planted import all_of_them

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def own(tmp_path: Path) -> Iterator[str]:
    """A prefix of modules: one imports a package, which imports a third lazily."""
    name = f"own_{uuid.uuid4().hex[:8]}"
    package = tmp_path / f"{name}_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import inner\n")
    lazy = f"def f():\n    import {name}_lazy\n"
    (package / "inner" / "__init__.py").write_text(lazy)
    (tmp_path / f"{name}_lazy.py").write_text("def (\n")  # nobody else's mistake
    (tmp_path / f"{name}_stranger.py").write_text("import antigravity\n")
    text = f"import {name}_package.inner as inner\n\nclass Thing:\n    pass\n"
    (tmp_path / f"{name}_first.py").write_text(text)
    sys.path.insert(0, str(tmp_path))
    yield name
    sys.path.remove(str(tmp_path))
    for module in [one for one in sys.modules if one.startswith(name)]:
        del sys.modules[module]


def test_what_a_module_imports_goes_along(own: str) -> None:
    """Also what it imports later, or through a package; and nothing that lies beside it."""
    thing = __import__(f"{own}_first").Thing()

    found = needed_modules(cloudpickle.dumps({"estimator": thing}))

    assert list(found) == [f"{own}_first", f"{own}_lazy", f"{own}_package"]
    assert found[f"{own}_package"].is_dir()


def test_a_function_of_the_notebook_names_what_it_imports(own: str) -> None:
    """It is pickled by value, and so are the names in it."""
    spoken: dict[str, object] = {"__name__": "__main__"}
    exec(f"def metric(a, b):\n    import {own}_lazy\n    return 0\n", spoken)  # noqa: S102

    assert list(needed_modules(cloudpickle.dumps(spoken["metric"]))) == [f"{own}_lazy"]


def test_what_is_installed_stays_where_it_is() -> None:
    """The image has it, and has this package."""
    assert needed_modules(cloudpickle.dumps(LogisticRegression())) == {}
    assert "dask_hpsearch" not in needed_modules(cloudpickle.dumps(Deed()))
    assert "tests" in needed_modules(cloudpickle.dumps(Deed()))


def test_a_secret_beside_a_module_does_not_get_into_a_run(
    own: str, tmp_path: Path
) -> None:
    """Whoever may read the run's folder would have it; the error does not tell it."""
    planted = next(one for one in all_of_them() if one.name == "account.json")
    secret_file = tmp_path / f"{own}_package" / "inner" / planted.name
    secret_file.write_bytes(planted.content)
    text = "from sklearn.linear_model import LogisticRegression as Base\n"
    (tmp_path / f"{own}_model.py").write_text(
        f"{text}import {own}_package\n\nclass Model(Base):\n    pass\n"
    )
    search = GridSearchCV(__import__(f"{own}_model").Model(), {"C": [1.0, 2.0]}, cv=2)
    store = open_store(tmp_path / "store")
    with DataStore.of(store) as data_store:
        work = Work(search, *flowers(), {})
        run = create_run(
            work, store=store, data_store=data_store, task_name=None, settings={}
        )

    with pytest.raises(
        SecretFoundError, match=r"account\.json has a private key"
    ) as caught:
        store_modules(run)

    assert planted.secret not in str(caught.value).encode()
    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert kept
    assert not any(planted.secret in path.read_bytes() for path in kept)
    assert not any("modules" in str(path.relative_to(tmp_path)) for path in kept)
    secret_file.unlink()
    assert len(store_modules(run)) == 3
