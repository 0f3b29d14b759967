"""What a GKE cluster is to be: the fields of a spec, with careful defaults.

Each field's comment says what it is for, and which field of ``google.container.v1`` it
sets; each default is the one that is safe to forget about. `gke_parts` has the parts.
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
from dask_hpsearch.config.machines import machine, shortage
from dask_hpsearch.config.quantities import cpu_millis, cpu_text, memory_bytes

NAMESPACE = "dask-hpsearch"  # where searches run, if the spec says nothing
# Names of labels that say whose a resource is, and until when.
OUR_LABELS = ("managed-by", "owner", "expires-at", "creation", "kept")
LONGEST_TTL_HOURS = 24 * 7
_NOTICE_MARGIN_S = 3  # between a worker's notice and its end

_NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
_PROJECT = r"^([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]$"
_LOCATION = r"^[a-z]+-[a-z]+[0-9]+(-[a-z])?$"
_STORE = r"^gs://[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9](/[^\s/?#]+)*/?$"
_REPOSITORY = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"


def _text(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=pattern)


class GKESpec(Part):
    """A GKE cluster, the image, and the Dask cluster that runs there."""

    project: Annotated[str, _text(_PROJECT)] = Field(
        description="the id of a Google Cloud project"
    )
    location: Annotated[str, _text(_LOCATION)] = Field(
        description=(
            "a zone, as 'europe-west4-a', or a region, as 'europe-west4' (the control "
            "plane is in three zones then)"
        )
    )
    zones: tuple[Zone, ...] = Field(
        (),
        strict=False,
        description="zones of the region, for nodes; needed if location is a region",
    )
    name: Annotated[str, _text(_NAME)] = Field(
        "dask-hpsearch",
        description="lower-case letters, digits and dashes, up to 40, a letter first",
    )
    # resource_labels: whom to ask. Left out: the user's name on this machine.
    owner: CloudLabelValue | None = Field(
        None, description="lower-case letters, digits, _ and -, up to 63"
    )
    labels: dict[CloudLabel, CloudLabelValue] = Field(
        default_factory=dict,
        description="names and values: lower-case letters, digits, _ and -, up to 63",
    )
    # After so many hours the cluster deletes itself, whatever has become of the notebook.
    ttl_hours: float = Field(
        8.0, gt=0, le=LONGEST_TTL_HOURS, description="hours, up to 168"
    )
    # A pod in the cluster sees to that. False: `dask-hpsearch sweep` does, if it is run.
    reaper: bool = Field(default=True, description=A_SWITCH)
    # Where runs and data are; sources of images pass through its bucket.
    store: Annotated[str, _text(_STORE)] = Field(
        description="a folder in a bucket, as 'gs://BUCKET/searches'"
    )
    # Which image: one that is there, or left out: one that is built (see registry).
    image: Image | None = Field(None, description=f"{AN_IMAGE}; left out: it is built")
    # The Artifact Registry repository for images, in the cluster's region.
    registry: Annotated[str, _text(_REPOSITORY)] = Field(
        "dask-hpsearch", description="a repository's name"
    )
    # Whose rights a build has. Left out: Cloud Build's own default.
    build_service_account: Account | None = Field(None, description=AN_ACCOUNT)
    # release_channel.channel: GKE keeps the version up to date
    release_channel: Literal["RAPID", "REGULAR", "STABLE", "EXTENDED"] = Field(
        "REGULAR", description="'RAPID', 'REGULAR', 'STABLE' or 'EXTENDED'"
    )
    # Pods act as accounts of their own: workload_identity_config.workload_pool
    workload_identity: bool = Field(default=True, description=A_SWITCH)
    # Nodes prove that they are what they seem: shielded_nodes.enabled
    shielded_nodes: bool = Field(default=True, description=A_SWITCH)
    # Which nodes go when there is little to do: autoscaling.autoscaling_profile
    autoscaling_profile: Literal["OPTIMIZE_UTILIZATION", "BALANCED"] = Field(
        "OPTIMIZE_UTILIZATION", description="'OPTIMIZE_UTILIZATION' or 'BALANCED'"
    )
    # config.service_account of all nodes: with roles/container.defaultNodeServiceAccount
    # and roles/artifactregistry.reader. Left out: dask-hpsearch-nodes@PROJECT….
    node_service_account: Account | None = Field(None, description=AN_ACCOUNT)
    control_plane: ControlPlane = Field(
        default=ControlPlane(), description="who reaches the Kubernetes API, and how"
    )
    network: Network = Field(default=Network(), description="where nodes and pods are")
    pools: Pools = Field(default=Pools(), description="system and workers")
    endpoints: Endpoints = Field(
        default=Endpoints(), description="container, cloudbuild and artifactregistry"
    )
    # The Dask cluster, as in a spec for kube_cluster, without image and nodes.
    dask: ClusterFields = Field(
        description="workers, scheduler and what else a Dask cluster has"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._place_problems(), *self._pool_problems()]
        taken = sorted(set(OUR_LABELS) & self.labels.keys())
        if taken:
            problems.append(f"labels {taken} are ours: choose other names")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _place_problems(self) -> list[str]:
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
        problems = self._size_problems()
        dask, pool, system = self.dask, self.pools.workers, self.pools.system
        parts = (dask, dask.workers, dask.scheduler, dask.driver)
        if any("nodes" in part.model_fields_set for part in parts):
            problems.append("dask: pools say on which nodes pods run: leave out nodes")
        if system.max_run_hours is not None and system.max_run_hours < self.ttl_hours:
            problems.append(
                f"pools.system.max_run_hours {system.max_run_hours} is less than "
                f"ttl_hours {self.ttl_hours:g}: the scheduler's node would go first"
            )
        if dask.workers.one_per_node and dask.workers.max > pool.max_nodes:
            problems.append(
                f"dask.workers.max {dask.workers.max} is more than pools.workers.max_nodes "
                f"{pool.max_nodes}, and each worker has a node of its own"
            )
        given = "notice" in dask.workers.model_fields_set
        longest = pool.pod_grace_s - _NOTICE_MARGIN_S
        if pool.spot and given and dask.workers.notice > longest:
            problems.append(
                f"dask.workers.notice {dask.workers.notice} is more than the {longest} s "
                f"that spot nodes give with pools.workers.grace {pool.grace}"
            )
        return problems

    def _size_problems(self) -> list[str]:
        """Tell which pods could never start, for want of a node that is large enough."""
        problems = []
        for what, pod, pool, where in (
            ("workers", self.dask.workers, self.pools.workers, "workers"),
            ("scheduler", self.dask.scheduler, self.pools.system, "system"),
            ("driver", self.dask.driver, self.pools.system, "system"),
        ):
            there = machine(pool.machine_type)
            cpu = cpu_millis(pod.cpu) if pod.cpu else 0
            memory = memory_bytes(pod.memory) if pod.memory else 0
            lacking = there and shortage(there, cpu=cpu, memory=memory)
            if lacking:
                problems.append(
                    f"dask.{what} does not fit on a {pool.machine_type} of "
                    f"pools.{where}, which has {lacking} for pods"
                )
        return problems

    @property
    def region(self) -> str:
        """The region that the location is, or is in."""
        return "-".join(self.location.split("-")[:2])

    @property
    def node_zones(self) -> tuple[str, ...]:
        """The zones in which nodes may be."""
        return self.zones or (self.location,)

    @property
    def parent(self) -> str:
        """The location, as Google's APIs name it."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def path(self) -> str:
        """The GKE cluster, as Google's APIs name it."""
        return f"{self.parent}/clusters/{self.name}"

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace in which searches run."""
        return self.dask.namespace or NAMESPACE

    @property
    def bucket(self) -> str:
        """The bucket that the store is in."""
        return self.store.removeprefix("gs://").partition("/")[0]

    @property
    def workload_pool(self) -> str:
        """Where the identities of pods come from."""
        return f"{self.project}.svc.id.goog"

    @property
    def nodes_run_as(self) -> str:
        """The service account of the nodes."""
        default = f"dask-hpsearch-nodes@{_mail_domain(self.project)}"
        return self.node_service_account or default

    @property
    def repository(self) -> str:
        """The repository of images, as Artifact Registry names it."""
        place = f"projects/{self.project}/locations/{self.region}"
        return f"{place}/repositories/{self.registry}"

    @property
    def image_name(self) -> str:
        """What images are called, without tag and digest."""
        project = self.project.replace(":", "/")
        return f"{self.region}-docker.pkg.dev/{project}/{self.registry}/dask-hpsearch"

    def cluster_spec(self, image: str) -> ClusterSpec:
        """Return the Dask cluster's spec, for the nodes of this GKE cluster.

        Parameters
        ----------
        image : str
            What `dask_hpsearch.gcp.images.images.ensure_image` returned.
        """
        pool = self.pools.workers
        taints = [{"key": WORKERS_LABEL, "value": "true", "effect": "NoSchedule"}]
        if pool.spot:
            taints.append({"key": SPOT_TAINT, "value": "true", "effect": "NoSchedule"})
        content = self.dask.model_dump(exclude_unset=True)
        workers: dict[str, object] = {**content["workers"], "nodes": "spot"}
        if pool.spot:
            notice = pool.pod_grace_s - _NOTICE_MARGIN_S
            workers.setdefault("notice", min(notice, _longest_notice()))
        content |= {
            "image": image,
            "namespace": self.namespace,
            "scheduler": {**content.get("scheduler", {}), "nodes": "on-demand"},
            "workers": workers,
            "driver": self._driver_size() | content.get("driver", {}),
            "nodes": {
                "on_demand": {"selector": {ON_DEMAND_LABEL: "true"}},
                "spot": {"selector": {WORKERS_LABEL: "true"}, "tolerations": taints},
            },
        }
        return ClusterSpec.model_validate(content)

    def _driver_size(self) -> dict[str, str]:
        """Return a worker's size, as far as there is room for it on a system's node."""
        workers = self.dask.workers
        room = machine(self.pools.system.machine_type)
        if room is None or not shortage(
            room, cpu=cpu_millis(workers.cpu), memory=memory_bytes(workers.memory)
        ):
            return {}
        cpu = min(cpu_millis(workers.cpu), room.pod_cpu_millis)
        memory = min(memory_bytes(workers.memory), room.pod_memory)
        return {"cpu": cpu_text(cpu), "memory": f"{memory >> 20}Mi"}


def _longest_notice() -> int:
    default: int = Workers.model_fields["notice"].default
    return default


def _mail_domain(project: str) -> str:
    """Return where a project's service accounts are; ``example.com:name`` is old style."""
    domain, colon, name = project.rpartition(":")
    where = f"{name}.{domain}" if colon else project
    return f"{where}.iam.gserviceaccount.com"
