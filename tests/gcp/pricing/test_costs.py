"""What a GKE cluster costs, and how old the prices are."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
import yaml

from dask_hpsearch.cli import main
from dask_hpsearch.exceptions import PriceUnknownError
from dask_hpsearch.gcp.pricing.costs import (
    cost_so_far,
    estimate,
    later_end,
    nodes_for,
    workers_per_node,
)
from dask_hpsearch.gcp.pricing.prices import load_prices
from tests.gcp.specs import SMALL, spec

if TYPE_CHECKING:
    from pathlib import Path

DAY = dt.date(2026, 1, 31)
TABLE = """
dated = 2026-01-01
source = "made up"
cluster_hour = 0.1
[machines.e2]
europe-west4 = [0.02, 0.003, 0.01, 0.001]
[machines.n2]
europe-west4 = [0.03, 0.004, 0.01, 0.002]
[disks.pd-balanced]
europe-west4 = 0.11
"""
E2_STANDARD_4 = 4 * 0.02 + 16 * 0.003
N2_STANDARD_8_SPOT = 8 * 0.01 + 32 * 0.002
DISK = 100 * 0.11 / 730


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A price table that is easily reckoned with."""
    path = tmp_path / "prices.toml"
    path.write_text(TABLE)
    return path


def test_an_estimate_adds_up_fee_nodes_and_disks(table: Path) -> None:
    """Before anything is created: idle, with some workers, and with all of them."""
    found = estimate(spec(), prices=load_prices(table), today=DAY)

    system, node = E2_STANDARD_4 + DISK, N2_STANDARD_8_SPOT + DISK
    assert found.idle_usd_hour == pytest.approx(0.1 + system)
    assert found.worker_usd_hour == pytest.approx(node)
    assert (found.initial, found.maximum) == (1, 10)
    assert found.initial_usd_hour == pytest.approx(0.1 + system + node)
    assert found.maximum_usd_hour == pytest.approx(0.1 + system + 10 * node)
    assert found.maximum_usd == pytest.approx(8 * found.maximum_usd_hour)
    assert found.warning == ""
    assert found.tariff.fixed_usd_hour == found.idle_usd_hour
    assert "list prices of 2026-01-01" in str(found)


def test_an_estimate_counts_a_drivers_node_and_all_that_pools_allow(
    table: Path,
) -> None:
    """A submitted run adds a node; several Dask clusters may fill both pools."""
    found = estimate(spec(), prices=load_prices(table), today=DAY)

    system, node = E2_STANDARD_4 + DISK, N2_STANDARD_8_SPOT + DISK
    assert found.driver_usd_hour == pytest.approx(system)
    assert found.tariff.driver_usd_hour == found.driver_usd_hour
    assert found.all_nodes == (3, 10)
    assert found.all_nodes_usd_hour == pytest.approx(0.1 + 3 * system + 10 * node)
    assert found.all_nodes_usd == pytest.approx(8 * found.all_nodes_usd_hour)
    text = str(found)
    assert "for the driver of a submitted run" in text
    assert "3 system, 10 workers" in text
    assert "moves its end later" in text
    assert "at most" not in text  # neither its end nor its use is certain


def test_a_driver_that_fits_beside_the_scheduler_costs_nothing_more(
    table: Path,
) -> None:
    """Then no node is added for it."""
    pools = {"system": {"machine_type": "e2-standard-16"}}

    found = estimate(spec(pools=pools), prices=load_prices(table), today=DAY)

    assert found.driver_usd_hour == 0.0
    assert "driver" not in str(found)


def test_an_existing_clusters_later_end_is_counted(table: Path) -> None:
    """It is kept as it is; one that ends as the spec says needs no words."""
    prices, hour = load_prices(table), 3600.0

    found = estimate(spec(), prices=prices, today=DAY, hours_left=20.0)
    sooner = estimate(spec(), prices=prices, today=DAY, hours_left=2.0)
    lines = later_end(spec(), 20 * hour, now=0.0, prices=prices)

    assert found.maximum_usd == pytest.approx(20 * found.maximum_usd_hour)
    assert sooner.ttl_hours == 8
    assert "in 20.0 hours" in lines[0]
    assert f"${found.maximum_usd:.2f} with 10 workers" in lines[1]
    assert later_end(spec(), 8 * hour, now=0.0, prices=prices) == []
    assert later_end(spec(), None, now=0.0, prices=prices) == []


def test_on_demand_nodes_cost_what_they_cost(table: Path) -> None:
    """Spot nodes have a price of their own."""
    pools = {"workers": {"spot": False}}

    found = estimate(spec(pools=pools), prices=load_prices(table), today=DAY)

    assert found.worker_usd_hour == pytest.approx(8 * 0.03 + 32 * 0.004 + DISK)


def test_an_old_table_says_so(table: Path) -> None:
    """With its age, and where to look."""
    prices = load_prices(table)

    found = estimate(spec(), prices=prices, today=dt.date(2026, 7, 1))

    assert "181 days old" in found.warning
    assert "cloud.google.com" in str(found)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"location": "us-central1-a"}, "e2-standard-4 in us-central1"),
        ({"pools": {"workers": {"machine_type": "c3-standard-8"}}}, "c3-standard-8"),
        ({"pools": {"workers": {"machine_type": "n2-custom-8-32768"}}}, "n2-custom"),
        ({"pools": {"workers": {"disk_type": "pd-ssd"}}}, "pd-ssd in europe-west4"),
    ],
)
def test_what_has_no_price_is_named(
    changes: dict[str, object], what: str, table: Path
) -> None:
    """It is not taken for free."""
    with pytest.raises(PriceUnknownError, match=what):
        estimate(spec(**changes), prices=load_prices(table))


def test_a_disk_without_a_price_is_told_with_the_way_out(table: Path) -> None:
    """n4 takes hyperdisks only, whose price depends on more than their size."""
    pool = {"machine_type": "n4-standard-8", "disk_type": "hyperdisk-balanced"}
    on_n4 = spec(pools={"workers": pool})

    with pytest.raises(PriceUnknownError, match="hyperdisk-balanced") as raised:
        estimate(on_n4)

    text = str(raised.value)
    assert "--prices FILE" in text
    assert "https://cloud.google.com/compute/disks-image-pricing" in text
    assert "n2-standard-8" in text
    own = table.with_name("own.toml")
    own.write_text(
        f"{table.read_text()}[machines.n4]\neurope-west4 = [0.03, 0.004, 0.01, 0.002]\n"
        "[disks.hyperdisk-balanced]\neurope-west4 = 0.2\n"
    )
    found = estimate(on_n4, prices=load_prices(own), today=DAY)
    disk = 100 * 0.2 / 730
    assert found.worker_usd_hour == pytest.approx(N2_STANDARD_8_SPOT + disk)


def test_several_workers_share_a_node() -> None:
    """As many as find room beside what GKE needs itself."""
    workers = {"cpu": 2, "memory": "8Gi", "slots": 2, "max": 10, "one_per_node": False}
    small = spec(dask={"workers": workers})

    assert workers_per_node(small) == 3
    assert [nodes_for(small, count) for count in (0, 1, 3, 4, 10)] == [0, 1, 1, 2, 4]
    assert workers_per_node(spec()) == 1


def test_the_cost_so_far_is_at_least_that_of_what_is_there(table: Path) -> None:
    """The fee and the least of nodes all the time, and those that are there now."""
    prices, hour = load_prices(table), 3600.0
    there = [("system", 0.0), ("workers", 1 * hour), ("workers", 1.5 * hour)]

    usd = cost_so_far(spec(), created=0.0, nodes=there, now=2 * hour, prices=prices)

    system, node = E2_STANDARD_4 + DISK, N2_STANDARD_8_SPOT + DISK
    assert usd == pytest.approx(2 * 0.1 + 2 * system + 1.5 * node)
    nothing = cost_so_far(spec(), created=0.0, nodes=[], now=2 * hour, prices=prices)
    assert nothing == pytest.approx(2 * 0.1 + 2 * system)


def test_the_table_that_comes_with_the_package() -> None:
    """It has the machines of specs by default, and spot nodes are cheaper there."""
    prices = load_prices()

    assert prices.dated <= dt.datetime.now(dt.UTC).date()
    for region in ("europe-west4", "us-central1", "asia-northeast1"):
        for machine_type in ("e2-standard-4", "n2-standard-8"):
            spot, full = (
                prices.machine_hour(machine_type, region, spot=one)
                for one in (True, False)
            )
            assert 0 < spot < full < 1
        assert 0 < prices.disk_hour("pd-balanced", 100, region) < 0.1
    # As Google's price list of those days has them, for a whole machine.
    of_lists = {"e2-standard-4": 0.134012, "n2-standard-8": 0.388472}
    for machine_type, usd in of_lists.items():
        found = prices.machine_hour(machine_type, "us-central1", spot=False)
        assert found == pytest.approx(usd, rel=0.05)


@pytest.mark.parametrize("content", ["", "dated = 1", "nonsense"])
def test_what_is_no_table_is_told(content: str, tmp_path: Path) -> None:
    """With the file's name, and what it should look like."""
    path = tmp_path / "mine.toml"
    path.write_text(content)

    with pytest.raises(
        PriceUnknownError, match=r"mine\.toml is not a valid price table"
    ):
        load_prices(path)


def test_the_command_shows_the_estimate(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a spec's file, by a table of the user's own."""
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SMALL))

    assert main(["cost", str(tmp_path / "spec.yaml"), "--prices", str(table)]) == 0

    shown = capsys.readouterr().out
    assert "an hour for each worker" in shown
    assert "until it deletes itself, after 8 hours" in shown
