"""Parameters and results as JSON, and digests by which they are recognised."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import numbers
import pickle
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_TEXT = 200
_DIGEST_LENGTH = 16


def digest_of(parameters: Mapping[str, Any]) -> str:
    """Digest of a candidate that depends on its values alone.

    Equal numbers have equal digests whatever their type (``np.float64(1.0)``, ``1.0``),
    mappings whatever their order; ``joblib.hash`` promises neither.
    """
    text = json.dumps(_canonical(parameters), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def _canonical(value: Any) -> Any:  # noqa: PLR0911 (one for each kind)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return ["number", str(int(value))]
    if isinstance(value, float):
        whole = math.isfinite(value) and value == int(value)
        return ["number", str(int(value)) if whole else value.hex()]
    if isinstance(value, dict):
        return ["dict", sorted([str(k), _canonical(v)] for k, v in value.items())]
    if isinstance(value, list | tuple):
        return ["list", [_canonical(one) for one in value]]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return ["array", value.dtype.str, value.shape, _hash(value.tobytes())]
    if hasattr(value, "get_params") and not isinstance(value, type):
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        return ["estimator", name, _canonical(value.get_params(deep=False))]
    return ["object", type(value).__qualname__, _stable_text(value)]


def _stable_text(value: Any) -> str:
    """Text of any object that is the same in another process."""
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{getattr(value, '__module__', '')}.{name}"
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def shown(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for people: JSON values, anything else as shortened text."""
    return {str(name): _shown(value) for name, value in parameters.items()}


def _shown(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def encode_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Encode a fit's result for the journal; floats keep their last digit.

    A result with parts that JSON cannot hold is pickled.
    """
    plain = {key: _plain(value) for key, value in result.items()}
    if not any(value is _NOT_PLAIN for value in plain.values()):
        return plain
    content = bytes(cloudpickle.dumps(dict(result), protocol=5))
    return {"pickle": base64.b64encode(content).decode("ascii")}


def decode_result(encoded: Mapping[str, Any]) -> dict[str, Any]:
    """Decode what `encode_result` made; only from a journal whose seal was checked."""
    if "pickle" in encoded:
        content = base64.b64decode(encoded["pickle"])
        result: dict[str, Any] = pickle.loads(content)  # noqa: S301 (sealed)
        return result
    return dict(encoded)


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        inner = {key: _plain(one) for key, one in value.items()}
        return _NOT_PLAIN if _NOT_PLAIN in inner.values() else inner
    return _NOT_PLAIN
