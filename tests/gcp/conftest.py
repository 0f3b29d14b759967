"""GKE of a project that has nothing yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.gke_service import GKEService, gke_service

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def gke() -> Iterator[GKEService]:
    """GKE in fake time."""
    with gke_service() as service:
        yield service
