"""Amounts as Kubernetes writes them: ``500m`` of a CPU, ``2Gi`` of memory."""

from __future__ import annotations

import re
from decimal import Decimal

_CPU = re.compile(r"(?P<number>\d+(\.\d{1,3})?)(?P<unit>m?)")
_MEMORY = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>Ki|Mi|Gi|Ti|k|M|G|T)")
_UNITS = {
    **{name: 1024**power for power, name in enumerate(("Ki", "Mi", "Gi", "Ti"), 1)},
    **{name: 1000**power for power, name in enumerate(("k", "M", "G", "T"), 1)},
}


def cpu_millis(text: str) -> int:
    """Read an amount of CPU.

    Returns
    -------
    int
        Thousandths of a CPU.

    Raises
    ------
    ValueError
        If the text is not an amount of CPU.
    """
    match = _CPU.fullmatch(text)
    if match is None:
        msg = "not an amount of CPU"
        raise ValueError(msg)
    number = Decimal(match["number"])
    millis = number if match["unit"] else number * 1000
    if millis != int(millis) or millis < 1:
        msg = "not a multiple of 1m"
        raise ValueError(msg)
    return int(millis)


def memory_bytes(text: str) -> int:
    """Read an amount of memory or disk, in bytes.

    Raises
    ------
    ValueError
        If the text is not an amount of memory with a unit.
    """
    match = _MEMORY.fullmatch(text)
    if match is None:
        msg = "not an amount of memory with a unit"
        raise ValueError(msg)
    nbytes = int(Decimal(match["number"]) * _UNITS[match["unit"]])
    if nbytes < 1:
        msg = "less than a byte"
        raise ValueError(msg)
    return nbytes


def cpu_text(millis: int) -> str:
    """Format an amount of CPU as the Kubernetes API does."""
    whole, rest = divmod(millis, 1000)
    return str(whole) if rest == 0 else f"{millis}m"
