"""Parameters and results as JSON, and digests that identify parameters."""

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

from dask_hpsearch.safe_text import LONGEST_INTEGER_BITS, integer_text, repr_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_TEXT = 200
_DIGEST_LENGTH = 16


def digest_of(parameters: Mapping[str, Any]) -> str:
    """Return the digest of a candidate's parameters, which depends only on their values.

    Equal numbers have equal digests, whatever their type (``np.float64(1.0)``, ``1.0``);
    so have mappings, whatever their order. ``joblib.hash`` promises neither. Of an opaque
    value only the type counts.
    """
    text, _ = _canonical_text(parameters)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def has_stable_digest(parameters: Mapping[str, Any]) -> bool:
    """Whether a candidate's digest is the same each time, in every process.

    The text of a user's object may change: that of a set follows the order of hashes.
    """
    _, stable = _canonical_text(parameters)
    return stable


def is_of(digest: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a digest is that of a candidate, or may be, since its digest is unstable."""
    return digest_of(parameters) == digest or not has_stable_digest(parameters)


def _canonical_text(parameters: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the text to digest, and whether it is the same each time."""
    unstable: list[str] = []
    try:
        return _json(_canonical(parameters, unstable)), not unstable
    except Exception:  # noqa: BLE001 (a user's values may raise anything)
        parts = [
            [str(name), _json_or_type(one, unstable)]
            for name, one in parameters.items()
        ]
        return _json(parts), not unstable


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _json_or_type(value: Any, unstable: list[str]) -> str:
    try:
        return _json(_canonical(value, unstable))
    except Exception:  # noqa: BLE001
        unstable.append(type(value).__qualname__)
        return type(value).__qualname__


def _canonical(value: Any, unstable: list[str]) -> Any:  # noqa: PLR0911 (of each kind)
    """Return a value as JSON values; add types without a stable text to a list."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return ["number", integer_text(int(value))]
    if isinstance(value, float):
        whole = math.isfinite(value) and value == int(value)
        return ["number", str(int(value)) if whole else value.hex()]
    if isinstance(value, dict):
        return ["dict", _canonical_items(value, unstable)]
    if isinstance(value, list | tuple):
        return ["list", [_canonical(one, unstable) for one in value]]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return ["array", value.dtype.str, value.shape, _hash(value.tobytes())]
    if hasattr(value, "get_params") and not isinstance(value, type):
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        return ["estimator", name, _canonical(value.get_params(deep=False), unstable)]
    return ["object", type(value).__qualname__, _stable_text(value, unstable)]


def _canonical_items(mapping: Mapping[Any, Any], unstable: list[str]) -> list[Any]:
    items = [[str(key), _canonical(value, unstable)] for key, value in mapping.items()]
    if len({name for name, _ in items}) == len(items):
        return sorted(items, key=lambda item: item[0])
    # Keys with the same text, such as 1 and "1", differ by their types.
    types = [type(key).__qualname__ for key in mapping]
    items = [[*item, kind] for item, kind in zip(items, types, strict=True)]
    return sorted(items, key=_json)


def _stable_text(value: Any, unstable: list[str]) -> str:
    """Return the text of an object; add its type to a list if the text is unstable."""
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{getattr(value, '__module__', '')}.{name}"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001
        text = " at 0x"
    if " at 0x" in text:  # the address, or no text at all
        return type(value).__qualname__
    unstable.append(type(value).__qualname__)
    return text


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def shown(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters to display: JSON values, others as shortened text."""
    return {str(name): shown_value(value) for name, value in parameters.items()}


def shown_value(value: Any) -> Any:
    """Return a value to display."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and value.bit_length() <= LONGEST_INTEGER_BITS:
        return value
    if not isinstance(value, str):
        return repr_of(value, _LONGEST_TEXT)
    text = str.__str__(value)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def encode_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Encode a fit's result for the journal; floats keep their last digit.

    A result that is not made of JSON values is pickled.
    """
    plain = {key: _plain(value) for key, value in result.items()}
    if not any(value is _NOT_PLAIN for value in plain.values()):
        return plain
    content = bytes(cloudpickle.dumps(dict(result), protocol=5))
    return {"pickle": base64.b64encode(content).decode("ascii")}


def decode_result(encoded: Mapping[str, Any]) -> dict[str, Any]:
    """Decode what `encode_result` returned, from a journal whose seal was checked."""
    if "pickle" in encoded:
        content = base64.b64decode(encoded["pickle"])
        result: dict[str, Any] = pickle.loads(content)  # noqa: S301 (sealed)
        return result
    return dict(encoded)


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is int and value.bit_length() > LONGEST_INTEGER_BITS:
        return _NOT_PLAIN
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if type(value) is dict and all(type(key) is str for key in value):
        inner = {key: _plain(one) for key, one in value.items()}
        return _NOT_PLAIN if _NOT_PLAIN in inner.values() else inner
    return _NOT_PLAIN
