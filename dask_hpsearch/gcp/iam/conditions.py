"""IAM conditions: one GKE cluster of a project, one folder of a bucket.

Types and names of resources are those of Google's "Resource attributes for IAM Conditions":
they differ from the names that the services' own APIs use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_GKE_TYPE = "container.googleapis.com/Clusters"
_BUCKET_TYPE = "storage.googleapis.com/Bucket"
_ZONE = re.compile(r"[a-z]+-[a-z]+[0-9]+-[a-z]")


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a role binding.

    Attributes
    ----------
    title : str
    expression : str
        In the Common Expression Language.
    """

    title: str
    expression: str

    @property
    def argument(self) -> str:
        """As the option ``--condition`` of gcloud takes it."""
        return f"expression={self.expression},title={self.title}"

    @property
    def body(self) -> dict[str, str]:
        """As a policy's JSON has it."""
        return {"title": self.title, "expression": self.expression}


def one_cluster(path: str) -> Condition:
    """Return the condition that a resource is one certain GKE cluster.

    Parameters
    ----------
    path : str
        As GKE's API names it: ``projects/P/locations/L/clusters/C``. IAM names zonal
        clusters ``projects/P/zones/Z/clusters/C``.
    """
    _, project, _, location, _, name = path.split("/")
    kind = "zones" if _ZONE.fullmatch(location) else "locations"
    expression = (
        f"resource.type == '{_GKE_TYPE}' && "
        f"resource.name == 'projects/{project}/{kind}/{location}/clusters/{name}'"
    )
    return Condition("one-cluster", expression)


def one_folder(bucket: str, folder: str) -> Condition:
    """Return the condition that an object is in one folder of a bucket.

    The permission to list objects is evaluated for the bucket, never for an object, so the
    condition allows the bucket itself: names in other folders can be listed, but their
    content can be neither read nor changed.

    Parameters
    ----------
    bucket : str
    folder : str
        Without the slash at its end.
    """
    expression = (
        f"resource.type == '{_BUCKET_TYPE}' || "
        f"resource.name.startsWith('projects/_/buckets/{bucket}/objects/{folder}/')"
    )
    return Condition("one-folder", expression)


def same_expression(first: str, second: str) -> bool:
    """Whether two expressions differ only in spaces and in the kind of quotes."""
    return _plain(first) == _plain(second)


def _plain(expression: str) -> str:
    return re.sub(r"\s+", "", expression.replace('"', "'"))
