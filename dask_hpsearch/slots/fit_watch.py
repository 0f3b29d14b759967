"""Watch the fit of a step for anything that a second fit might do differently.

A step gives the same result again on the same rows if its fit drew no random number, asked
for no entropy, did not warn and did not change its data. The watch cannot see clocks, files,
the network, other processes, and generators of compiled code.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
import warnings
import zlib
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dask_hpsearch.slots.random_generators import generators_here
from dask_hpsearch.slots.snapshots import memory_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.slots.random_generators import Seedable

# Packages whose generators cannot be found and compared.
_UNSEEN_GENERATORS = ("cupy", "jax", "keras", "numba", "tensorflow")
# Packages that use entropy only to name calls, folders and contexts.
_NAMING_PACKAGES = ("joblib.", "sklearn.callback.")
_SEEDING_PACKAGES = ("scipy", "sklearn")
_OF_STANDARD_LIBRARY = ("random", "secrets", "uuid", "tempfile", __name__)


class WarningWatch:
    """Notes whether a fit warned: if so, it has to warn every time.

    Attributes
    ----------
    warned : bool
    repeatable : bool
        Whether another fit gives the same result, as far as is known.
    """

    def __init__(self) -> None:
        self.warned = False
        self.repeatable = True

    def __enter__(self) -> Self:
        self._show = show = warnings.showwarning

        def note(*args: Any, **options: Any) -> None:
            self.warned = True
            show(*args, **options)

        warnings.showwarning = note
        return self

    def __exit__(self, *error: object) -> None:
        warnings.showwarning = self._show


class FitWatch(WarningWatch):
    """Notes whether a fit did anything that another fit might do differently.

    Parameters
    ----------
    given : tuple
        The data of the fit.
    known_code : bool
        Whether only scikit-learn's own code runs, which keeps no generators and does not
        write to its data.
    unchanged : tuple
        Further objects that must not change, with any code.
    draws : bool
        Whether to draw some numbers first, so that a step that sets a seed is detected. Not
        between a fit and its score: the final step may have set a seed, and draw later.

    Attributes
    ----------
    repeatable : bool
        Whether the fit did no such thing; valid once the watch has ended.
    """

    def __init__(
        self,
        given: tuple[Any, ...],
        *,
        known_code: bool,
        unchanged: tuple[Any, ...] = (),
        draws: bool = True,
    ) -> None:
        super().__init__()
        self._draws = draws
        self._given = unchanged if known_code else (*given, *unchanged)
        self._known_code = known_code

    def __enter__(self) -> Self:
        if not self._known_code and any(
            one in sys.modules for one in _UNSEEN_GENERATORS
        ):
            self.repeatable = False
        self._generators = generators_here(all_of_them=not self._known_code)
        # A step that sets a fixed seed leaves the same state behind each time. Without these
        # draws, the next fit would seem to change nothing.
        if self._draws:
            np.random.bytes(1 + os.urandom(1)[0])  # noqa: NPY002 (it is the one to watch)
            random.random()  # noqa: S311
        self._before = self._states()
        self._entropy = _EntropyWatch()
        self._entropy.begin()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._entropy.end()
        if self._entropy.asked:
            self.repeatable = False
        if self.repeatable:
            self.repeatable = None not in self._before and (
                self._before == self._states()
            )
        self._given = ()

    def _states(self) -> list[Any]:
        """Return what a fit must not change: generators' states, checksums of the data."""
        states: list[Any] = [_state_of(one) for one in self._generators]
        torch = sys.modules.get("torch")
        if torch is not None:
            states += _torch_states(torch)
        return states + [_checksum(one) for one in self._given]


def _state_of(generator: Seedable) -> Any:
    if isinstance(generator, np.random.Generator):
        return pickle.dumps(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        state = generator.get_state(legacy=False)
        key = state["state"].get("key")
        if key is None:  # of another kind than numpy's own
            return pickle.dumps(state)
        counts = state["state"]["pos"], state["has_gauss"], state["gauss"]
        return key.tobytes(), *counts
    if isinstance(generator, random.SystemRandom):
        return ""  # has no state, but asks for entropy
    return generator.getstate()


def _torch_states(torch: Any) -> list[bytes]:
    try:
        states = [torch.get_rng_state()]
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states += torch.cuda.get_rng_state_all()
        return [state.cpu().numpy().tobytes() for state in states]
    except AttributeError:  # it is still being imported
        return []


def _checksum(value: Any) -> tuple[int, ...] | None:
    """Return checksums of data; None if it cannot be compared."""
    parts = memory_of(value)
    return None if parts is None else tuple(map(zlib.crc32, parts))


class _EntropyWatch:
    """Notes whether anything asks the operating system for entropy.

    `numpy.random.default_rng`, ``RandomState()``, ``secrets``, ``uuid4`` and
    ``random.Random()`` do so if they have no seed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._places: list[tuple[Any, str, Any]] = []

    def begin(self) -> None:
        """Replace the functions that ask for entropy by watched ones."""
        self._watch(os, "urandom", lambda _args, _options: True)
        self._watch(random, "_urandom", lambda _args, _options: True)
        if hasattr(os, "getrandom"):
            self._watch(os, "getrandom", lambda _args, _options: True)
        self._watch(random.Random, "seed", _is_without_seed)

    def end(self) -> None:
        """Restore the original functions."""
        for owner, name, original in self._places:
            setattr(owner, name, original)
        self._places.clear()

    def _watch(
        self, owner: Any, name: str, asks: Callable[[tuple[Any, ...], Any], bool]
    ) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            if asks(args, options) and not _is_harmless():
                self.asked = True
            return original(*args, **options)

        self._places.append((owner, name, original))
        setattr(owner, name, watched)


def _is_without_seed(args: tuple[Any, ...], options: Any) -> bool:
    _, *given = args
    return (given[0] if given else options.get("a")) is None


def _is_harmless() -> bool:
    """Whether the requested entropy affects no result: it only names things, or is not used.

    ``RandomState(seed)`` asks for entropy before it takes its seed.
    """
    frame: Any = sys._getframe(2)  # noqa: SLF001 (as cheap as it gets)
    while frame is not None and frame.f_globals.get("__name__") in _OF_STANDARD_LIBRARY:
        frame = frame.f_back
    if frame is None:
        return False
    module = str(frame.f_globals.get("__name__"))
    package = module.partition(".")[0]
    if package in _SEEDING_PACKAGES and frame.f_code.co_name == "check_random_state":
        return isinstance(frame.f_locals.get("seed"), int | np.integer)
    return module.startswith(_NAMING_PACKAGES)
