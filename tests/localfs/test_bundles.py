"""Bundles: one copy of an object for all processes of a machine."""

from __future__ import annotations

import io
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dask_hpsearch.localfs import bundles
from dask_hpsearch.localfs.atomic import replaced_whole
from dask_hpsearch.localfs.bundles import Bundle, load, release_pages
from dask_hpsearch.slots.evaluate import Bundles
from tests.processes import held_bytes

# numpy's pickles of datetimes forget a foreign byte order.
NATIVE = hnp.scalar_dtypes().filter(lambda dtype: dtype.isnative)


def written(value: Any, folder: Path) -> str:
    """Write an object's bundle; return its path."""
    bundle = Bundle(value)
    path = folder / bundle.digest
    bundle.write(path)
    assert path.stat().st_size == bundle.nbytes
    return str(path)


@given(array=hnp.arrays(NATIVE, hnp.array_shapes(max_dims=3, max_side=6)))
def test_arrays_come_back_as_they_were(
    array: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every dtype and shape survives."""
    loaded = bundles.load(written(array, tmp_path_factory.mktemp("b")))

    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype == array.dtype


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("part", [np.s_[:], np.s_[::2], np.s_[:, ::-1], np.s_[..., 1:]])
def test_selected_rows_have_their_order_in_memory(
    axes: tuple[int, ...], part: Any, tmp_path: Path
) -> None:
    """Sums depend on it in their last digits."""
    shape = np.array([8, 3, 4])
    stored = np.random.default_rng(0).normal(size=tuple(shape[list(axes)]))
    array = stored.transpose(np.argsort(axes))[part]
    rows = np.array([0, 3, 1])

    found = bundles.load(written(array, tmp_path))[rows]

    np.testing.assert_array_equal(found, array[rows])
    assert found.strides == array[rows].strides


def test_array_data_is_mapped_and_read_only(tmp_path: Path) -> None:
    """Loading copies nothing; nobody can change what the others see."""
    loaded = bundles.load(written(np.arange(10_000.0), tmp_path))

    assert not loaded.flags.writeable
    assert not loaded.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        loaded[0] = 1


def test_a_writable_load_is_a_copy(tmp_path: Path) -> None:
    """A process of its own may write."""
    path = written(np.zeros(10), tmp_path)
    loaded = bundles.load(path, writable=True)

    loaded[:] = 1

    np.testing.assert_array_equal(bundles.load(path), np.zeros(10))


@pytest.mark.parametrize(
    "value",
    [
        None,
        ["a", "b"],
        np.arange(24).reshape(4, 6)[:, ::2],
        np.asfortranarray(np.arange(24.0).reshape(4, 6)),
        np.array(["x", None], dtype=object),
        pd.DataFrame(
            {"a": [1.0, 2.0], "b": ["x", "y"], "c": pd.Categorical(["u", "v"])}
        ),
        scipy.sparse.random(20, 30, 0.2, format="csr", random_state=0),
    ],
    ids=["none", "list", "strided", "fortran", "objects", "frame", "sparse"],
)
def test_any_data_comes_back(value: Any, tmp_path: Path) -> None:
    """Lists, frames, sparse and odd arrays survive."""
    loaded = bundles.load(written(value, tmp_path))

    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(loaded, value)
    elif scipy.sparse.issparse(value):
        np.testing.assert_array_equal(loaded.toarray(), value.toarray())
    else:
        np.testing.assert_array_equal(loaded, value)


@given(a=st.binary(max_size=64), b=st.binary(max_size=64))
def test_equal_content_has_one_name(a: bytes, b: bytes) -> None:
    """Digests tell contents apart, and nothing else."""
    assert (Bundle(a).digest == Bundle(b).digest) == (a == b)


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    """A file is there whole or not at all."""

    def write_and_fail() -> None:
        with replaced_whole(tmp_path / "x") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()

    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_its_owners_alone(tmp_path: Path) -> None:
    """Data may be secret, and folders are shared."""
    path = Path(written(np.arange(10), tmp_path))

    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    """Any other file is named as such."""
    path = tmp_path / "x"
    path.write_bytes(b"0" * 100)

    with pytest.raises(OSError, match="is not a bundle"):
        bundles.load(str(path))


def test_an_altered_bundle_is_found_out(tmp_path: Path) -> None:
    """Content is checked against its name."""
    path = Path(written(np.arange(1000.0), tmp_path))
    bundles.verify(path, path.name)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)

    with pytest.raises(OSError, match="does not match its name"):
        bundles.verify(path, path.name)


def test_locks_do_not_pickle() -> None:
    """An object that cannot be sent is an error of pickle's."""
    with pytest.raises(TypeError):
        Bundle(io.BufferedReader(io.BytesIO()))  # type: ignore[arg-type]


def test_a_slot_lets_go_of_what_was_removed(tmp_path: Path) -> None:
    """Data of a search that has ended is not mapped once another has begun."""
    paths = {str(size): written(np.zeros(size), tmp_path) for size in (1000, 2000)}
    slot = Bundles()
    slot.get("1000", paths)
    Path(paths["1000"]).unlink()

    assert len(slot.get("1000", paths)) == 1000  # as long as nothing new comes
    slot.get("2000", paths)

    mapped = Path("/proc/self/maps").read_text("utf-8")
    assert Path(paths["1000"]).name not in mapped
    assert Path(paths["2000"]).name in mapped


def test_a_slot_lets_go_of_what_is_idle(tmp_path: Path) -> None:
    """Not before other tasks come, and not of what these use."""
    paths = {str(size): written(np.zeros(size), tmp_path) for size in (1000, 2000)}
    dropped: list[str] = []
    slot = Bundles(dropped.append, idle_s=0.0)
    with slot.for_tasks():
        slot.get("1000", paths)
    with slot.for_tasks():
        assert dropped == ["1000"]
        slot.get("1000", paths)
        slot.get("2000", paths)
    patient = Bundles(dropped.append, idle_s=60.0)
    for _ in range(3):
        with patient.for_tasks():
            patient.get("2000", paths)

    assert dropped == ["1000"]
    mapped = Path("/proc/self/maps").read_text("utf-8")
    assert Path(paths["2000"]).name in mapped


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", ["", ".npy"])
def test_pages_of_mapped_data_can_be_released(tmp_path: Path, suffix: str) -> None:
    """The data stay valid; data that a process has written to stay as they are."""
    path = tmp_path / f"data{suffix}"
    data = np.arange(2e6)
    if suffix:
        np.save(path, data)
    else:
        Bundle(data).write(path)
    mapped, own = load(str(path)), load(str(path), writable=True)
    own[0] = 7
    total = mapped.sum()
    held = held_bytes(path)

    release_pages([mapped, own, data, "text"])

    assert held_bytes(path) < held - data.nbytes / 2
    assert mapped.sum() == total
    assert own[0] == 7
