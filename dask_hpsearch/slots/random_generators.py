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

_GLOBAL: tuple[Seedable, ...] = (
    np.random.mtrand._rand,  # noqa: SLF001 (what numpy.random's functions draw from)
    random._inst,  # noqa: SLF001 (and those of random)
)
_inherited: list[Seedable] = []


def find_generators() -> list[Seedable]:
    """Return all generators of numpy and Python that exist in this process.

    They are the global ones and those of libraries, as in scikit-learn's default arguments.
    """
    kinds = np.random.RandomState, np.random.Generator, random.Random
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


def generators_here(*, all_of_them: bool) -> list[Seedable]:
    """Return the generators that a fit in this process may draw from.

    Parameters
    ----------
    all_of_them : bool
        Those of modules and objects too, besides the global ones.
    """
    found: dict[int, Seedable] = {id(one): one for one in (*_GLOBAL, *_inherited)}
    if all_of_them:
        found |= {id(one): one for one in find_generators()}
    return list(found.values())


def reseed(generators: Iterable[Seedable]) -> None:
    """Seed generators anew, from the operating system's entropy.

    They are remembered: a frozen garbage collector does not find them again.
    """
    _inherited[:] = generators
    for one in _inherited:
        if isinstance(one, np.random.Generator):
            bits = one.bit_generator
            bits.state = type(bits)().state
        else:
            one.seed()
