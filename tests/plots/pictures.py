"""The pictures that the displays are compared with; renews them as a program.

python -m tests.plots.pictures
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from PIL import Image

from dask_hpsearch import plots
from tests.plots.searches import SEARCHES

if TYPE_CHECKING:
    from dask_hpsearch import SearchRun

BASELINE = Path(__file__).parent / "baseline"
DPI = 72
COLORS = 64  # of a stored picture, which is a third as large with them
DARK = "dark_background"
# The parameters that a forest chooses may differ between versions of scikit-learn.
PAIRS = {
    "grid": ("C", "gamma"),
    "multimetric": ("C", "kernel"),
    "bayes": ("alpha", "l1_ratio"),
}
FOREST_PAIR = ("model__learning_rate", "model__max_depth")
PICTURES = [
    (display, search, style)
    for display in plots.__all__
    for search in SEARCHES
    for style in ("default", DARK)
    if style == "default" or search == "failing"
]


@functools.cache
def run_of(search: str) -> SearchRun:
    """Return the run of one of the eight searches."""
    return SEARCHES[search].run()


def options_of(display: str, search: str) -> dict[str, Any]:
    """Return what keeps a display fast and its picture the same."""
    if display == "ContourDisplay":
        return {"params": PAIRS.get(search, FOREST_PAIR)}
    if display == "ParameterImportanceDisplay":
        return {"n_resamples": 6}
    return {}


def draw(display: str, search: str, style: str, path: Path) -> None:
    """Draw a display of a search into a file."""
    with mpl.rc_context():
        mpl.rcdefaults()
        plt.style.use(style)
        shown = getattr(plots, display).from_search(
            run_of(search), **options_of(display, search)
        )
        figure = shown.plot().figure_
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
        plt.close(figure)


def name_of(display: str, search: str, style: str) -> str:
    """Return the name of a picture's file."""
    ending = "-dark" if style == DARK else ""
    return f"{display.removesuffix('Display')}-{search}{ending}.png"


def renew() -> None:
    """Draw all pictures again."""
    for path in BASELINE.glob("*.png"):
        path.unlink()
    for display, search, style in PICTURES:
        path = BASELINE / name_of(display, search, style)
        draw(display, search, style, path)
        with Image.open(path) as picture:
            fewer_colors = picture.convert("RGB").quantize(COLORS)
        fewer_colors.save(path, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["DASK_HPSEARCH_HOME"] = home
        plt.switch_backend("Agg")
        renew()
