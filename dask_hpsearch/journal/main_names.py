"""Names of ``__main__`` in a process that has another one.

cloudpickle pickles classes and functions of a notebook or script by value. Objects inside
that are pickled by other means, such as a fitted torch module, refer to them by name:
``__main__.Net``, which a driver or another notebook does not have.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import sys
from types import ModuleType
from typing import Any

# The functions with which cloudpickle rebuilds objects that it pickled by value.
_MAKERS = ("_make_function", "_make_skeleton_class", "_make_skeleton_enum")


class UserMain(ModuleType):
    """The ``__main__`` of a driver, to which the user's names are added."""


def stand_in_for_main() -> None:
    """Give this process a ``__main__`` to which the user's names are added for good."""
    sys.modules["__main__"] = UserMain("__main__")


def loads(content: bytes) -> Any:
    """Unpickle; rebuilt names of ``__main__`` can be found by name in the meantime.

    In a process of the user, only names that its ``__main__`` lacks are added, and they
    are removed at the end.
    """
    main = sys.modules["__main__"]
    unpickler = _Unpickler(content, main)
    try:
        return unpickler.load()
    finally:
        if not isinstance(main, UserMain):
            for name in unpickler.added:
                with contextlib.suppress(AttributeError):
                    delattr(main, name)


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, main: ModuleType) -> None:
        super().__init__(io.BytesIO(content))
        self._main = main
        self.added: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module == "cloudpickle.cloudpickle" and name in _MAKERS:
            return functools.partial(self._make, found)
        return found

    def _make(self, maker: Any, *args: Any) -> Any:
        made = maker(*args)
        name = getattr(made, "__name__", "")
        if getattr(made, "__module__", "") == "__main__" and name.isidentifier():
            if isinstance(self._main, UserMain):
                setattr(self._main, name, made)
            elif not hasattr(self._main, name):
                setattr(self._main, name, made)
                self.added.append(name)
        return made
