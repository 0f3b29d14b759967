"""What a Dask cluster on Kubernetes is to be: the fields of a spec, and what they allow.

Every field says in its description what it may be; `dask_hpsearch.config.load` quotes
that when the field is wrong. So a rule and its error are in one place.
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
# Longer than a submitted run's driver may take until it starts, or goes on elsewhere.
IDLE_TIMEOUT_S = 7200
_LEAST_SCHEDULER = 256 * 2**20
_LEAST_WORKER = 512 * 2**20
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_IMAGE = re.compile(r"[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?")
_MUTABLE_TAGS = frozenset(
    {"latest", "main", "master", "dev", "develop", "edge", "nightly", "stable", "head"}
)
# Ours to set: with other values the cluster would be open, or would not come together.
_RESERVED = ("DASK_DISTRIBUTED__COMM__", "DASK_SCHEDULER_", "DASK_WORKER_", "LD_")
_RESERVED_NAMES = frozenset(
    {"DASK_TEMPORARY_DIRECTORY", "HOME", "PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR"}
)

_LABEL_NAME = (
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?"


def _cpu(value: Any) -> str:
    """Accept a number of CPUs too, which YAML reads from ``cpu: 2``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        msg = "it is no amount of CPU"
        raise ValueError(msg)  # noqa: TRY004 (pydantic gathers ValueErrors)
    return cpu_text(cpu_millis(str(value)))


def _memory(text: str) -> str:
    memory_bytes(text)
    return text


def _fixed_image(text: str) -> str:
    if not _IMAGE.fullmatch(text):
        msg = "it is no name of an image"
        raise ValueError(msg)
    if _DIGEST.search(text):
        return text
    _, colon, tag = text.rpartition("/")[2].partition(":")
    if not colon or not tag:
        msg = "without a tag it means :latest, which changes"
        raise ValueError(msg)
    if tag.lower() in _MUTABLE_TAGS:
        msg = f"the tag {tag!r} does not stay the same image"
        raise ValueError(msg)
    return text


def _own_name(name: str) -> str:
    if name.startswith(_RESERVED) or name in _RESERVED_NAMES:
        msg = "dask_hpsearch sets it itself"
        raise ValueError(msg)
    return name


def _requirement(text: str) -> str:
    kind = secret_in_address(text)
    if kind is not None:
        msg = (
            f"it has {kind}, which the image would show to all who may pull it: name a place "
            "where nobody has to log in, or put the package into modules:"
        )
        raise ValueError(msg)
    try:
        Requirement(text)
    except InvalidRequirement as error:
        msg = f"it is no requirement: {error}".splitlines()[0]
        raise ValueError(msg) from error
    return text


def _no_secrets(variables: dict[str, str]) -> dict[str, str]:
    """Refuse values that whoever may look at a pod would see."""
    kinds = {name: secret_in_variable(name, value) for name, value in variables.items()}
    found = [f"{name} has {kind}" for name, kind in kinds.items() if kind is not None]
    if found:
        msg = (
            f"{', '.join(found)}, and whoever may look at pods would see it: put it into a "
            "Secret of the namespace, and name that in secrets:"
        )
        raise ValueError(msg)
    return variables


def _not_default(name: str) -> str:
    if name == "default":
        msg = "the default account is shared by all that runs in a namespace"
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
    "an image by its digest (NAME@sha256:…), or by a tag that stays the same "
    "(NAME:1.2; not latest, main and the like)"
)
A_NAME = "lower-case letters, digits and dashes, up to 63"
_A_CPU = "CPUs, as 2, 0.5 or '500m'"
_A_MEMORY = "an amount with its unit, as '512Mi' or '4Gi'"


class Part(BaseModel):
    """A part of a spec: read strictly, and never changed."""

    # strict: what YAML took for another kind of value is told, not guessed at
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Toleration(Part):
    """A taint that pods put up with."""

    key: LabelName = Field(description="the taint's key, as a label's name")
    value: LabelValue | None = Field(
        None, description="the taint's value; left out: any value"
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None,
        description="'NoSchedule', 'PreferNoSchedule', 'NoExecute'; left out: all",
    )


class NodeKind(Part):
    """Which nodes pods may run on."""

    selector: dict[LabelName, LabelValue] = Field(
        default_factory=dict,
        description="labels that a node must have, names and values as text",
    )
    tolerations: tuple[Toleration, ...] = Field(
        (),
        strict=False,
        description="a list of taints, each with key, value and effect",
    )


class Nodes(Part):
    """The two kinds of nodes that a spec can speak of."""

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
            msg = f"memory {self.memory!r} is too little for a scheduler: 256Mi or more"
            raise ValueError(msg)
        return self


class Workers(Part):
    """The pods of Dask workers; each has slots, in which fits run."""

    cpu: Cpu = Field(description=_A_CPU)
    memory: Memory = Field(description=f"{_A_MEMORY}, at least 512Mi")
    slots: int = Field(
        ge=1, le=1024, description="fits that run at once in a worker, 1 to 1024"
    )
    cache: Memory = Field(
        "10Gi", description=f"{_A_MEMORY}: disk for data and temporary files"
    )
    initial: int = Field(
        1, ge=0, le=10_000, description="workers to begin with, from min to max"
    )
    min: int = Field(0, ge=0, le=10_000, description="a whole number of 0 or more")
    max: int = Field(10, ge=1, le=10_000, description="a whole number of 1 or more")
    nodes: NodesName = Field(
        "any", description="'on-demand', 'spot' or 'any' (of nodes:)"
    )
    one_per_node: bool = Field(
        default=True,
        description="true: no two workers of a cluster on one node; or false",
    )
    notice: int = Field(
        25,
        ge=1,
        le=3600,
        description="seconds that a worker which is to leave has, 1 to 3600",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if memory_bytes(self.memory) < _LEAST_WORKER:
            problems.append(
                f"memory {self.memory!r} is too little for a worker: 512Mi or more"
            )
        if self.min > self.max:
            problems.append(f"min {self.min} is more than max {self.max}")
        elif not self.min <= self.initial <= self.max:
            problems.append(
                f"initial {self.initial} is not from min {self.min} to max {self.max}"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Driver(Part):
    """The pod that drives a submitted run: as large as a worker, since it refits."""

    cpu: Cpu | None = Field(None, description=f"{_A_CPU}; left out: as a worker's")
    memory: Memory | None = Field(
        None, description=f"{_A_MEMORY}; left out: as a worker's"
    )
    nodes: NodesName = Field(
        "on-demand", description="'on-demand', 'spot' or 'any' (of nodes:)"
    )
    service_account: Annotated[Name, AfterValidator(_not_default)] | None = Field(
        None,
        description=(
            f"an account of the namespace, {A_NAME}, not 'default', which may reach the "
            "store; left out: one of each run's own"
        ),
    )


class ClusterFields(Part):
    """A Dask cluster on Kubernetes, but for its image."""

    namespace: Name | None = Field(
        None, description=f"{A_NAME}; left out: that of the kubeconfig's context"
    )
    scheduler: Scheduler = Field(
        default=Scheduler(), description="cpu, memory and nodes"
    )
    workers: Workers = Field(description="cpu, memory, slots and what else they have")
    driver: Driver = Field(
        default=Driver(), description="cpu, memory, nodes and service_account"
    )
    nodes: Nodes = Field(default_factory=Nodes, description="on_demand and spot")
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
            "names of Secrets of the namespace, whose keys become environment "
            f"variables of the workers; each {A_NAME}"
        ),
    )
    requirements: tuple[Annotated[str, AfterValidator(_requirement)], ...] = Field(
        (),
        strict=False,
        description="what pip is to install in the image, as 'xgboost==2.1.4'",
    )
    modules: tuple[str, ...] = Field(
        (),
        strict=False,
        description="files or folders of modules of yours for the image, as text",
    )
    service_account: Annotated[Name, AfterValidator(_not_default)] | None = Field(
        None,
        description=(
            f"an account of the namespace, {A_NAME}, not 'default'; left out: one of "
            "the cluster's own, without any rights"
        ),
    )
    image_pull_secrets: tuple[Name, ...] = Field(
        (), strict=False, description=f"names of Secrets; each {A_NAME}"
    )
    idle_timeout: int | None = Field(
        IDLE_TIMEOUT_S,
        ge=1,
        description=(
            "seconds without work after which the cluster ends, 1 or more; null: it "
            "does not"
        ),
    )
    labels: dict[LabelName, LabelValue] = Field(
        default_factory=dict,
        description="names and values of labels, as text, for all that is created",
    )

    @model_validator(mode="after")
    def _labels_of_ours(self) -> Self:
        taken = [name for name in self.labels if name.startswith("dask.org/")]
        if taken:
            msg = f"labels {taken} are Dask's own: choose other names"
            raise ValueError(msg)
        return self


class ClusterSpec(ClusterFields):
    """A Dask cluster on Kubernetes, as a file of ``cluster_specs/`` describes it."""

    image: Image = Field(description=AN_IMAGE)
