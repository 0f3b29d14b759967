"""Every display of eight searches looks as it was last seen to be right."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from matplotlib.testing.compare import compare_images

from tests.plots.pictures import BASELINE, PICTURES, draw, name_of

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCE = 6.0  # root of the mean square of differences, of 255
LARGEST_NBYTES = 1_500_000


@pytest.mark.parametrize(("display", "search", "style"), PICTURES)
def test_a_picture_is_like_the_one_that_was_looked_at(
    display: str, search: str, style: str, tmp_path: Path
) -> None:
    """No warning is raised on the way; `tests.plots.pictures` renews the pictures."""
    name = name_of(display, search, style)
    expected = tmp_path / f"expected-{name}"
    shutil.copy(BASELINE / name, expected)

    draw(display, search, style, tmp_path / name)

    difference = compare_images(str(expected), str(tmp_path / name), TOLERANCE)
    assert difference is None, difference


def test_another_search_is_another_picture(tmp_path: Path) -> None:
    """The tolerance is for fonts, and not for data."""
    names = [
        name_of("SearchHistoryDisplay", one, "default")
        for one in ("running", "stopped")
    ]
    for name in names:
        shutil.copy(BASELINE / name, tmp_path)

    first, second = (str(tmp_path / name) for name in names)

    assert compare_images(first, second, TOLERANCE) is not None


def test_the_pictures_are_small_and_none_is_left_over() -> None:
    """They are part of the repository."""
    paths = list(BASELINE.iterdir())

    assert {path.name for path in paths} == {name_of(*one) for one in PICTURES}
    assert sum(path.stat().st_size for path in paths) < LARGEST_NBYTES
