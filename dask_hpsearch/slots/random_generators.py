"""Random number generators that slots must not share.

A fork copies every generator that exists, so slots would draw the same "random" numbers.
Names of temporary files, ``uuid``, ``secrets`` and `numpy.random.default_rng` need nothing
here: they use the operating system or the process's number.
"""

from __future__ import annotations

import gc
import random
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

Seedable: TypeAlias = np.random.RandomState | np.random.Generator | random.Random


def find_generators() -> list[Seedable]:
    """Return all generators of numpy and Python that exist in this process.

    They are the global ones and those of libraries, as in scikit-learn's default arguments.
    """
    kinds = np.random.RandomState, np.random.Generator, random.Random
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


def reseed(generators: Iterable[Seedable]) -> None:
    """Seed generators again, from the operating system's entropy."""
    for one in generators:
        if isinstance(one, np.random.Generator):
            bits = one.bit_generator
            bits.state = type(bits)().state
        else:
            one.seed()
