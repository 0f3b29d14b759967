"""The price table that comes with the package: list prices, of a day that it names.

Google changes prices of spot machines up to once a month, and others now and then. So the
table says how old it is, and anybody can have one of his own.
"""

from __future__ import annotations

import datetime as dt
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.config.machines import machine
from dask_hpsearch.exceptions import PriceUnknownError

if TYPE_CHECKING:
    from collections.abc import Mapping

SHIPPED = Path(__file__).with_name("prices.toml")
_OLD_DAYS = 180
_GIB = 2**30
_HOURS_A_MONTH = 730


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices in US dollars, without taxes and discounts.

    Attributes
    ----------
    dated : date
        When they were those.
    source : str
        Where they are from.
    cluster_hour : float
        Fee of a GKE cluster.
    machines : mapping
        By family and region: a CPU's hour and a GiB's hour, on demand and spot.
    disks : mapping
        By kind and region: a GB's month.
    """

    dated: dt.date
    source: str
    cluster_hour: float
    machines: Mapping[str, Mapping[str, tuple[float, float, float, float]]]
    disks: Mapping[str, Mapping[str, float]]

    def machine_hour(self, machine_type: str, region: str, *, spot: bool) -> float:
        """Price of a machine's hour.

        Raises
        ------
        PriceUnknownError
            If the table does not have it.
        """
        family = machine_type.partition("-")[0]
        size = machine(machine_type)
        per = self.machines.get(family, {}).get(region)
        if size is None or per is None:
            raise self._unknown(machine_type, region)
        cpu, gib = per[2:] if spot else per[:2]
        return size.cpus * cpu + size.memory / _GIB * gib

    def disk_hour(self, kind: str, gb: int, region: str) -> float:
        """Price of a disk's hour.

        Raises
        ------
        PriceUnknownError
            If the table does not have it.
        """
        per = self.disks.get(kind, {}).get(region)
        if per is None:
            raise self._unknown(kind, region)
        return gb * per / _HOURS_A_MONTH

    def age_days(self, today: dt.date) -> int:
        """Return how old the table is."""
        return (today - self.dated).days

    def warning(self, today: dt.date) -> str:
        """Say that the table is old; nothing if it is not."""
        days = self.age_days(today)
        if days <= _OLD_DAYS:
            return ""
        return (
            f"these prices are {days} days old (of {self.dated}): compare with "
            "https://cloud.google.com/compute/all-pricing, or give a table of your own"
        )

    def _unknown(self, what: str, region: str) -> PriceUnknownError:
        return PriceUnknownError(
            f"the price table of {self.dated} has no {what} in {region}: choose another, or give a "
            "table of your own, which load_prices reads"
        )


def load_prices(path: Path = SHIPPED) -> Prices:
    """Read a price table; the one that comes with the package, if no other is named.

    Parameters
    ----------
    path : Path
        A TOML file of the form of ``dask_hpsearch/gcp/prices.toml``.

    Raises
    ------
    PriceUnknownError
        If it cannot be read as one.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return Prices(
            dated=_day(content["dated"]),
            source=str(content["source"]),
            cluster_hour=float(content["cluster_hour"]),
            machines={
                family: {region: _four(per) for region, per in regions.items()}
                for family, regions in content["machines"].items()
            },
            disks=content["disks"],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        msg = (
            f"{path} is no price table ({type(error).__name__}: {error}): write it as "
            f"{SHIPPED} is written"
        )
        raise PriceUnknownError(msg) from error


def _day(value: Any) -> dt.date:
    if not isinstance(value, dt.date):
        msg = f"dated is no day: {value!r}"
        raise TypeError(msg)
    return value


def _four(per: Any) -> tuple[float, float, float, float]:
    cpu, gib, spot_cpu, spot_gib = map(float, per)
    return cpu, gib, spot_cpu, spot_gib
