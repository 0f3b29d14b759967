"""The state of a model between two training tasks, named by the hash of its content.

**Runs in slots.** A training task loads the model, trains it, and returns its next state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dask_hpsearch.exceptions import UntrustedObjectError
from dask_hpsearch.localfs import bundles

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelState:
    """A pickled model: immutable, and named by its content.

    Attributes
    ----------
    digest : str
        SHA-256 (128 bits of it, in hexadecimal) of the bundle: of the model's pickle and of its
        arrays.
    content : bytes or Path
        The bundle, or a file that has it.
    """

    digest: str
    content: bytes | Path

    @classmethod
    def of(cls, model: Any) -> Self:
        """Pickle a model.

        Raises
        ------
        Exception
            As pickling raises it.
        """
        bundle = bundles.Bundle(model)
        return cls(bundle.digest, bundle.to_bytes())

    def load(self) -> Any:
        """Return the model; it may be changed, this state is not.

        Raises
        ------
        UntrustedObjectError
            If the content is missing or altered: it is not unpickled then.
        """
        try:
            return bundles.load_verified(self.content, self.digest)
        except OSError as error:
            msg = (
                f"the state {self.digest} of a model cannot be used: {error}. Start the search "
                "again as a new run"
            )
            raise UntrustedObjectError(msg) from error
