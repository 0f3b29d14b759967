"""The price table of the package: list prices of a given date.

Google changes prices of spot machines up to once a month, and others occasionally. The table
has a date, and users can provide their own.
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
_HYPERDISK_HINT = (
    ". Google bills the size of a hyperdisk, and the IOPS and the throughput that are "
    "provisioned for it: see https://cloud.google.com/compute/disks-image-pricing. Machine types "
    "that take pd-balanced, such as n2-standard-8, have an estimate"
)
_GIB = 2**30
_HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices in US dollars, without taxes and discounts.

    Attributes
    ----------
    dated : date
        Date of the prices.
    source : str
        Their source.
    cluster_hour : float
        Fee of a GKE cluster.
    machines : mapping
        By family and region: hourly prices of a CPU and of a GiB, on demand and spot.
    disks : mapping
        By type and region: monthly price of a GB.
    """

    dated: dt.date
    source: str
    cluster_hour: float
    machines: Mapping[str, Mapping[str, tuple[float, float, float, float]]]
    disks: Mapping[str, Mapping[str, float]]

    def machine_hour(self, machine_type: str, region: str, *, spot: bool) -> float:
        """Return the hourly price of a machine.

        Raises
        ------
        PriceUnknownError
            If it is not in the table.
        """
        family = machine_type.partition("-")[0]
        size = machine(machine_type)
        per = self.machines.get(family, {}).get(region)
        if size is None or per is None:
            raise self._unknown(machine_type, region)
        cpu, gib = per[2:] if spot else per[:2]
        return size.cpus * cpu + size.memory / _GIB * gib

    def disk_hour(self, kind: str, gb: int, region: str) -> float:
        """Return the hourly price of a disk.

        Raises
        ------
        PriceUnknownError
            If it is not in the table. That of the package has no hyperdisks: their price
            depends on the IOPS and the throughput that are provisioned, too.
        """
        per = self.disks.get(kind, {}).get(region)
        if per is None:
            hint = _HYPERDISK_HINT if kind.startswith("hyperdisk-") else ""
            raise self._unknown(kind, region, hint)
        return gb * per / _HOURS_PER_MONTH

    def age_days(self, today: dt.date) -> int:
        """Return the age of the table."""
        return (today - self.dated).days

    def warning(self, today: dt.date) -> str:
        """Return a warning if the table is old; else an empty string."""
        days = self.age_days(today)
        if days <= _OLD_DAYS:
            return ""
        return (
            f"these prices are {days} days old (dated {self.dated}): compare with "
            "https://cloud.google.com/compute/all-pricing, or provide your own price table"
        )

    def _unknown(self, name: str, region: str, hint: str = "") -> PriceUnknownError:
        return PriceUnknownError(
            f"the price table of {self.dated} has no {name} in {region}: choose another, or provide "
            f"your own price table (dask-hpsearch cost SPEC --prices FILE, or load_prices){hint}"
        )


def load_prices(path: Path = SHIPPED) -> Prices:
    """Read a price table; default: that of the package.

    Parameters
    ----------
    path : Path
        A TOML file in the format of ``dask_hpsearch/gcp/pricing/prices.toml``.

    Raises
    ------
    PriceUnknownError
        If it is not a valid price table.
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
            f"{path} is not a valid price table ({type(error).__name__}: {error}): see "
            f"{SHIPPED} for the format"
        )
        raise PriceUnknownError(msg) from error


def _day(value: Any) -> dt.date:
    if not isinstance(value, dt.date):
        msg = f"dated must be a date, got {value!r}"
        raise TypeError(msg)
    return value


def _four(per: Any) -> tuple[float, float, float, float]:
    cpu, gib, spot_cpu, spot_gib = map(float, per)
    return cpu, gib, spot_cpu, spot_gib
