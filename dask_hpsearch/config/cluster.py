"""The spec of a Dask cluster on Kubernetes: its fields and their constraints.

The description of each field completes the sentence "NAME must be …", which
`dask_hpsearch.config.load` writes when the field is invalid: a rule and its error are in one
place.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from dask_hpsearch.config.quantities import cpu_millis, cpu_text, memory_bytes
from dask_hpsearch.security.secret_scan import secret_in_address, secret_in_variable

GIB = 2**30
# Longer than a submitted run's driver may take to start, or to restart on another node.
IDLE_TIMEOUT_S = 7200
_LEAST_SCHEDULER = 256 * 2**20
_LEAST_WORKER = 512 * 2**20
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_IMAGE = re.compile(r"[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?")
_MUTABLE_TAGS = frozenset(
    {"latest", "main", "master", "dev", "develop", "edge", "nightly", "stable", "head"}
)
# Set by dask_hpsearch: with other values the cluster would be insecure, or would not start.
_RESERVED = ("DASK_DISTRIBUTED__COMM__", "DASK_SCHEDULER_", "DASK_WORKER_", "LD_")
_RESERVED_NAMES = frozenset(
    {"DASK_TEMPORARY_DIRECTORY", "HOME", "PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR"}
)

_LABEL_NAME = (
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?"


def _cpu(value: Any) -> str:
    """Accept also a number, which YAML reads from ``cpu: 2``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        msg = "not an amount of CPU"
        raise ValueError(msg)  # noqa: TRY004 (pydantic gathers ValueErrors)
    return cpu_text(cpu_millis(str(value)))


def _memory(text: str) -> str:
    memory_bytes(text)
    return text


def _fixed_image(text: str) -> str:
    if not _IMAGE.fullmatch(text):
        msg = "not the name of an image"
        raise ValueError(msg)
    if _DIGEST.search(text):
        return text
    _, colon, tag = text.rpartition("/")[2].partition(":")
    if not colon or not tag:
        msg = "without a tag it means :latest, which changes"
        raise ValueError(msg)
    if tag.lower() in _MUTABLE_TAGS:
        msg = f"the tag {tag!r} can refer to another image later"
        raise ValueError(msg)
    return text


def _own_name(name: str) -> str:
    if name.startswith(_RESERVED) or name in _RESERVED_NAMES:
        msg = "dask_hpsearch sets it"
        raise ValueError(msg)
    return name


def _requirement(text: str) -> str:
    kind = secret_in_address(text)
    if kind is not None:
        msg = (
            f"contains {kind}, which all users of the image could read: use a public URL, or "
            "put the package into modules:"
        )
        raise ValueError(msg)
    try:
        Requirement(text)
    except InvalidRequirement as error:
        msg = f"not a requirement: {error}".splitlines()[0]
        raise ValueError(msg) from error
    return text


def _no_secrets(variables: dict[str, str]) -> dict[str, str]:
    """Refuse secrets, which all users who may read pods could see."""
    kinds = {name: secret_in_variable(name, value) for name, value in variables.items()}
    found = [
        f"{name} contains {kind}" for name, kind in kinds.items() if kind is not None
    ]
    if found:
        msg = (
            f"{', '.join(found)}, which all users who may read pods could see: put it into a "
            "Secret of the namespace, and name the Secret in secrets:"
        )
        raise ValueError(msg)
    return variables


def _not_default(name: str) -> str:
    if name == "default":
        msg = "the default account is shared by all pods of a namespace"
        raise ValueError(msg)
    return name


def _name(longest: int) -> StringConstraints:
    return StringConstraints(
        pattern=rf"^[a-z0-9]([-a-z0-9]{{0,{longest - 2}}}[a-z0-9])?$"
    )


Image = Annotated[str, AfterValidator(_fixed_image)]
Name = Annotated[str, _name(63)]
Cpu = Annotated[str, BeforeValidator(_cpu)]
Memory = Annotated[str, AfterValidator(_memory)]
LabelName = Annotated[str, StringConstraints(pattern=rf"^{_LABEL_NAME}$")]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^{_LABEL_VALUE}$")]
VariableName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"),
    AfterValidator(_own_name),
]
NodesName = Literal["any", "on-demand", "spot"]

AN_IMAGE = (
    "an image by its digest (NAME@sha256:…), or by a fixed tag (NAME:1.2; not latest, "
    "main and the like)"
)
A_NAME = "lower-case letters, digits and dashes, up to 63"
_A_CPU = "a number of CPUs, such as 2, 0.5 or '500m'"
_A_MEMORY = "an amount with its unit, such as '512Mi' or '4Gi'"


class Part(BaseModel):
    """A part of a spec: validated strictly, immutable."""

    # strict: a value of another type is an error, and is not converted
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Toleration(Part):
    """A taint that pods tolerate."""

    key: LabelName = Field(description="a taint's key, as a label's name")
    value: LabelValue | None = Field(
        None, description="a taint's value; omitted: any value"
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None,
        description="'NoSchedule', 'PreferNoSchedule', 'NoExecute'; omitted: all",
    )


class NodeKind(Part):
    """Which nodes pods may run on."""

    selector: dict[LabelName, LabelValue] = Field(
        default_factory=dict,
        description="labels of nodes, names and values as text",
    )
    tolerations: tuple[Toleration, ...] = Field(
        (),
        strict=False,
        description="a list of taints, each with key, value and effect",
    )


class Nodes(Part):
    """The two kinds of nodes that a spec can name."""

    on_demand: NodeKind = Field(
        default=NodeKind(), description="selector and tolerations"
    )
    spot: NodeKind = Field(default=NodeKind(), description="selector and tolerations")


class Scheduler(Part):
    """The pod of the Dask scheduler."""

    cpu: Cpu = Field("500m", description=_A_CPU)
    memory: Memory = Field("1Gi", description=f"{_A_MEMORY}, at least 256Mi")
    nodes: NodesName = Field(
        "on-demand", description="'on-demand', 'spot' or 'any' (of nodes:)"
    )

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if memory_bytes(self.memory) < _LEAST_SCHEDULER:
            msg = f"memory {self.memory!r} is too little for a scheduler, which needs at least 256Mi"
            raise ValueError(msg)
        return self


class Workers(Part):
    """The pods of Dask workers; each has slots, in which fits run."""

    cpu: Cpu = Field(description=_A_CPU)
    memory: Memory = Field(description=f"{_A_MEMORY}, at least 512Mi")
    slots: int = Field(
        ge=1, le=1024, description="a number of concurrent fits, 1 to 1024"
    )
    cache: Memory = Field(
        "10Gi", description=f"{_A_MEMORY}, of disk for data and temporary files"
    )
    initial: int = Field(
        1, ge=0, le=10_000, description="a number of workers, from min to max"
    )
    min: int = Field(0, ge=0, le=10_000, description="an integer, 0 or more")
    max: int = Field(10, ge=1, le=10_000, description="a positive integer")
    nodes: NodesName = Field(
        "any", description="'on-demand', 'spot' or 'any' (of nodes:)"
    )
    one_per_node: bool = Field(
        default=True,
        description="true (at most one worker of a cluster on each node) or false",
    )
    notice: int = Field(
        25,
        ge=1,
        le=3600,
        description="seconds between a worker's termination notice and its end, 1 to 3600",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if memory_bytes(self.memory) < _LEAST_WORKER:
            problems.append(
                f"memory {self.memory!r} is too little for a worker, which needs at least 512Mi"
            )
        if self.min > self.max:
            problems.append(f"min {self.min} is greater than max {self.max}")
        elif not self.min <= self.initial <= self.max:
            problems.append(
                f"initial {self.initial} is not between min {self.min} and max {self.max}"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Driver(Part):
    """The pod that drives a submitted run; it refits, so it is as large as a worker."""

    cpu: Cpu | None = Field(None, description=f"{_A_CPU}; omitted: that of a worker")
    memory: Memory | None = Field(
        None, description=f"{_A_MEMORY}; omitted: that of a worker"
    )
    nodes: NodesName = Field(
        "on-demand", description="'on-demand', 'spot' or 'any' (of nodes:)"
    )
    service_account: Annotated[Name, AfterValidator(_not_default)] | None = Field(
        None,
        description=(
            f"a service account with access to the store, {A_NAME}, not 'default'; "
            "omitted: a new one for each run"
        ),
    )


class ClusterFields(Part):
    """A Dask cluster on Kubernetes, without its image."""

    namespace: Name | None = Field(
        None, description=f"{A_NAME}; omitted: that of the kubeconfig's context"
    )
    scheduler: Scheduler = Field(
        default=Scheduler(), description="the fields cpu, memory and nodes"
    )
    workers: Workers = Field(
        description="a mapping with at least cpu, memory and slots"
    )
    driver: Driver = Field(
        default=Driver(),
        description="the fields cpu, memory, nodes and service_account",
    )
    nodes: Nodes = Field(
        default_factory=Nodes, description="the fields on_demand and spot"
    )
    environment: Annotated[dict[VariableName, str], AfterValidator(_no_secrets)] = (
        Field(
            default_factory=dict,
            description=(
                "names of variables (letters, digits, _; none that dask_hpsearch sets) "
                "and values in quotes, none of them secret"
            ),
        )
    )
    secrets: tuple[Name, ...] = Field(
        (),
        strict=False,
        description=(
            "names of Secrets of the namespace, whose keys become environment variables of "
            f"the workers; each {A_NAME}"
        ),
    )
    requirements: tuple[Annotated[str, AfterValidator(_requirement)], ...] = Field(
        (),
        strict=False,
        description="requirements that pip installs in the image, such as 'xgboost==2.1.4'",
    )
    modules: tuple[str, ...] = Field(
        (),
        strict=False,
        description="paths of files or folders of user modules",
    )
    service_account: Annotated[Name, AfterValidator(_not_default)] | None = Field(
        None,
        description=(
            f"a service account of the namespace, {A_NAME}, not 'default'; omitted: a new "
            "one for the cluster, without permissions"
        ),
    )
    image_pull_secrets: tuple[Name, ...] = Field(
        (), strict=False, description=f"names of Secrets; each {A_NAME}"
    )
    idle_timeout: int | None = Field(
        IDLE_TIMEOUT_S,
        ge=1,
        description=(
            "seconds without work after which the cluster is deleted, 1 or more; null: never"
        ),
    )
    labels: dict[LabelName, LabelValue] = Field(
        default_factory=dict,
        description="names and values of labels, as text, for all objects",
    )

    @model_validator(mode="after")
    def _no_reserved_labels(self) -> Self:
        taken = [name for name in self.labels if name.startswith("dask.org/")]
        if taken:
            msg = f"labels {taken} are reserved for Dask: choose other names"
            raise ValueError(msg)
        return self


class ClusterSpec(ClusterFields):
    """A Dask cluster on Kubernetes, as in the files of ``cluster_specs/``."""

    image: Image = Field(description=AN_IMAGE)
