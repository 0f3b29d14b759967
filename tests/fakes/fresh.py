"""A project as a first user meets it: before its first GKE cluster, and not his own."""

from __future__ import annotations

from tests.fakes.project import OPERATIONS_ROLE, FakeProject
from tests.fakes.rights import AllBut, documented_roles
from tests.processes import ROOT

PAGE = ROOT / "docs" / "proving-on-gke.md"
REGION = "europe-west4"  # in which the project may not build


def users_rights() -> AllBut:
    """Return what a user lacks who has the roles that the documentation lists, and no others."""
    return AllBut(documented_roles(PAGE))


def fresh_project() -> FakeProject:
    """Return a project without identity pool, whose user may not change IAM policies.

    What can be made before the first GKE cluster is there: APIs, accounts, bucket.
    """
    project = FakeProject(pools=set(), lacking=users_rights())
    project.own_roles.clear()
    project.policy.conditional.clear()
    del project.roles[OPERATIONS_ROLE]
    project.bucket_policy.conditional.clear()
    return project
