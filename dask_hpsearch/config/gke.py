"""The spec of a GKE cluster: its fields, with safe defaults.

Each field's comment names its purpose, and the field of ``google.container.v1`` that it
sets. Its parts are in `gke_parts`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from dask_hpsearch.config.cluster import (
    AN_IMAGE,
    ClusterFields,
    ClusterSpec,
    Image,
    Part,
    Workers,
)
from dask_hpsearch.config.gke_parts import (
    A_SWITCH,
    AN_ACCOUNT,
    ON_DEMAND_LABEL,
    SPOT_TAINT,
    WORKERS_LABEL,
    Account,
    CloudLabel,
    CloudLabelValue,
    ControlPlane,
    Endpoints,
    Network,
    Pools,
    Zone,
)
from dask_hpsearch.config.placement import driver_size, size_problems
from dask_hpsearch.messages import CLOUD_NAT_VARIABLE

NAMESPACE = "dask-hpsearch"  # default namespace of Dask clusters
# Labels by which dask_hpsearch manages resources.
RESERVED_LABELS = ("managed-by", "owner", "expires-at", "creation", "kept")
LONGEST_TTL_HOURS = 24 * 7
_NOTICE_MARGIN = 3  # between a worker's notice and its end

_NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
_PROJECT = r"^([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]$"
_LOCATION = r"^[a-z]+-[a-z]+[0-9]+(-[a-z])?$"
_BUILD_LOCATION = r"^(global|[a-z]+-[a-z]+[0-9]+)$"
_STORE = r"^gs://[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9](/[^\s/?#]+)*/?$"
_REPOSITORY = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"


def _text(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=pattern)


class GKESpec(Part):
    """A GKE cluster, the image, and the Dask cluster that runs there."""

    project: Annotated[str, _text(_PROJECT)] = Field(
        description="the ID of a Google Cloud project"
    )
    location: Annotated[str, _text(_LOCATION)] = Field(
        description=(
            "a zone, such as 'europe-west4-a', or a region, such as 'europe-west4' (with a control "
            "plane in three zones)"
        )
    )
    zones: tuple[Zone, ...] = Field(
        (),
        strict=False,
        description="zones of the region for nodes; required if location is a region",
    )
    name: Annotated[str, _text(_NAME)] = Field(
        "dask-hpsearch",
        description="lower-case letters, digits and dashes, up to 40, a letter first",
    )
    # resource_labels: the owner. Omitted: the user's name on this machine.
    owner: CloudLabelValue | None = Field(
        None, description="lower-case letters, digits, _ and -, up to 63"
    )
    labels: dict[CloudLabel, CloudLabelValue] = Field(
        default_factory=dict,
        description="names and values: lower-case letters, digits, _ and -, up to 63",
    )
    # The GKE cluster deletes itself after so many hours, even if no client is left.
    ttl_hours: float = Field(
        8.0,
        gt=0,
        le=LONGEST_TTL_HOURS,
        description="hours, more than 0 and at most 168",
    )
    # A pod in the GKE cluster deletes it. False: `dask-hpsearch sweep` does, if it is run.
    reaper: bool = Field(default=True, description=A_SWITCH)
    # Folder of runs and data; its bucket also holds sources of images during builds.
    store: Annotated[str, _text(_STORE)] = Field(
        description="a folder in a bucket, such as 'gs://BUCKET/searches'"
    )
    # An existing image. Omitted: one is built (see registry).
    image: Image | None = Field(None, description=f"{AN_IMAGE}; omitted: it is built")
    # The Artifact Registry repository for images, in the GKE cluster's region.
    registry: Annotated[str, _text(_REPOSITORY)] = Field(
        "dask-hpsearch", description="a repository's name"
    )
    # Where Cloud Build builds. Omitted: the GKE cluster's region, or "global" if the project may
    # not build there, as new projects may not in some regions.
    build_location: Annotated[str, _text(_BUILD_LOCATION)] | None = Field(
        None, description="a region, such as 'europe-west4', or 'global'"
    )
    # Service account of builds. Omitted: Cloud Build's default, which is that of Compute
    # Engine; an account for builds alone can do less.
    build_service_account: Account | None = Field(None, description=AN_ACCOUNT)
    # release_channel.channel: GKE keeps the version up to date
    release_channel: Literal["RAPID", "REGULAR", "STABLE", "EXTENDED"] = Field(
        "REGULAR", description="'RAPID', 'REGULAR', 'STABLE' or 'EXTENDED'"
    )
    # Pods have their own identities: workload_identity_config.workload_pool
    workload_identity: bool = Field(default=True, description=A_SWITCH)
    # Nodes prove their identity: shielded_nodes.enabled
    shielded_nodes: bool = Field(default=True, description=A_SWITCH)
    # How eagerly idle nodes are removed: autoscaling.autoscaling_profile
    autoscaling_profile: Literal["OPTIMIZE_UTILIZATION", "BALANCED"] = Field(
        "OPTIMIZE_UTILIZATION", description="'OPTIMIZE_UTILIZATION' or 'BALANCED'"
    )
    # config.service_account of all nodes: with roles/container.defaultNodeServiceAccount
    # and roles/artifactregistry.reader. Omitted: dask-hpsearch-nodes@PROJECT….
    node_service_account: Account | None = Field(None, description=AN_ACCOUNT)
    control_plane: ControlPlane = Field(
        default=ControlPlane(), description="the fields of the control plane"
    )
    network: Network = Field(default=Network(), description="the fields of the network")
    pools: Pools = Field(default=Pools(), description="the fields system and workers")
    endpoints: Endpoints = Field(
        default=Endpoints(),
        description="the fields container, cloudbuild and artifactregistry",
    )
    # The Dask cluster, as in a spec for kube_cluster, without image and nodes.
    dask: ClusterFields = Field(
        description="the fields of a Dask cluster, at least workers"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._location_problems(), *self._pool_problems()]
        taken = sorted(set(RESERVED_LABELS) & self.labels.keys())
        if taken:
            problems.append(
                f"labels {taken} are reserved for dask-hpsearch: choose other names"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _location_problems(self) -> list[str]:
        regional = self.region == self.location
        if regional and not self.zones:
            return [
                (
                    f"location {self.location!r} is a region: name zones for its nodes, as "
                    f"zones: [{self.location}-b]"
                )
            ]
        outside = [zone for zone in self.zones if zone[:-2] != self.region]
        if outside:
            return [f"zones {outside} are not in {self.region}"]
        if not regional and self.location not in (self.zones or (self.location,)):
            return [f"zones {list(self.zones)} lack the location {self.location!r}"]
        return []

    def _pool_problems(self) -> list[str]:
        problems = size_problems(self.dask, self.pools)
        dask, pool, system = self.dask, self.pools.workers, self.pools.system
        parts = (dask, dask.workers, dask.scheduler, dask.driver)
        if any("nodes" in part.model_fields_set for part in parts):
            problems.append("dask: omit nodes, because pods run on the nodes of pools")
        if system.max_run_hours is not None and system.max_run_hours < self.ttl_hours:
            problems.append(
                f"pools.system.max_run_hours {system.max_run_hours} is less than "
                f"ttl_hours {self.ttl_hours:g}: the scheduler's node would be replaced first"
            )
        if dask.workers.one_per_node and dask.workers.max > pool.max_nodes:
            problems.append(
                f"dask.workers.max {dask.workers.max} is greater than pools.workers.max_nodes "
                f"{pool.max_nodes}, and each worker needs its own node"
            )
        given = "notice" in dask.workers.model_fields_set
        longest = pool.pod_grace - _NOTICE_MARGIN
        if pool.spot and given and dask.workers.notice > longest:
            problems.append(
                f"dask.workers.notice {dask.workers.notice} is greater than the {longest} s "
                f"that spot nodes allow with pools.workers.grace {pool.grace}"
            )
        return problems

    @property
    def region(self) -> str:
        """The region of the location."""
        return "-".join(self.location.split("-")[:2])

    @property
    def node_zones(self) -> tuple[str, ...]:
        """The zones of the nodes."""
        return self.zones or (self.location,)

    @property
    def parent(self) -> str:
        """The location's resource name."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def path(self) -> str:
        """The GKE cluster's resource name."""
        return f"{self.parent}/clusters/{self.name}"

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace of Dask clusters."""
        return self.dask.namespace or NAMESPACE

    @property
    def bucket(self) -> str:
        """The bucket of the store."""
        return self.store.removeprefix("gs://").partition("/")[0]

    @property
    def workload_pool(self) -> str:
        """The Workload Identity pool."""
        return f"{self.project}.svc.id.goog"

    @property
    def nodes_run_as(self) -> str:
        """The service account of the nodes."""
        default = f"dask-hpsearch-nodes@{_mail_domain(self.project)}"
        return self.node_service_account or default

    @property
    def repository(self) -> str:
        """The resource name of the repository of images."""
        parent = f"projects/{self.project}/locations/{self.region}"
        return f"{parent}/repositories/{self.registry}"

    @property
    def image_name(self) -> str:
        """The name of images, without tag and digest."""
        project = self.project.replace(":", "/")
        return f"{self.region}-docker.pkg.dev/{project}/{self.registry}/dask-hpsearch"

    @property
    def cloud_nat_command(self) -> str:
        """The command that gives the network's private nodes a way to the internet."""
        host, network = self.network.network_parts(self.project)
        name, where = "dask-hpsearch", f"--project={host} --region={self.region}"
        return (
            f"gcloud compute routers create {name} {where} --network={network} && "
            f"gcloud compute routers nats create {name} {where} --router={name} "
            "--auto-allocate-nat-external-ips --nat-all-subnet-ip-ranges"
        )

    def cluster_spec(self, image: str) -> ClusterSpec:
        """Return the Dask cluster's spec, for the nodes of this GKE cluster.

        Parameters
        ----------
        image : str
            As `dask_hpsearch.gcp.images.images.ensure_image` returns it.
        """
        pool = self.pools.workers
        taints = [{"key": WORKERS_LABEL, "value": "true", "effect": "NoSchedule"}]
        if pool.spot:
            taints.append({"key": SPOT_TAINT, "value": "true", "effect": "NoSchedule"})
        content = self.dask.model_dump(exclude_unset=True)
        workers: dict[str, object] = {**content["workers"], "nodes": "spot"}
        if pool.spot:
            notice = pool.pod_grace - _NOTICE_MARGIN
            workers.setdefault("notice", min(notice, _longest_notice()))
        if self.network.private_nodes:
            nat = {CLOUD_NAT_VARIABLE: self.cloud_nat_command}
            content["environment"] = nat | content.get("environment", {})
        content |= {
            "image": image,
            "namespace": self.namespace,
            "scheduler": {**content.get("scheduler", {}), "nodes": "on-demand"},
            "workers": workers,
            "driver": driver_size(self.dask, self.pools) | content.get("driver", {}),
            "nodes": {
                "on_demand": {"selector": {ON_DEMAND_LABEL: "true"}},
                "spot": {"selector": {WORKERS_LABEL: "true"}, "tolerations": taints},
            },
        }
        return ClusterSpec.model_validate(content)


def _longest_notice() -> int:
    default: int = Workers.model_fields["notice"].default
    return default


def _mail_domain(project: str) -> str:
    """Return the domain of a project's service accounts; ``example.com:name`` is old style."""
    domain, colon, name = project.rpartition(":")
    where = f"{name}.{domain}" if colon else project
    return f"{where}.iam.gserviceaccount.com"
