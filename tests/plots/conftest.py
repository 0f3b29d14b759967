"""Figures of these tests are drawn without a screen, and closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def without_screen() -> Iterator[None]:
    """Draw into files, with matplotlib's own settings."""
    with mpl.rc_context():
        plt.switch_backend("Agg")
        mpl.rcdefaults()
        yield
        plt.close("all")
