"""Provisions a GKE cluster and its image for Dask, completely or not at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_hpsearch.concurrency import run_coroutine
from dask_hpsearch.deploy.bindings import ensure_bindings
from dask_hpsearch.deploy.bootstrap import bootstrap, place_reaper
from dask_hpsearch.deploy.deprovision import deprovision, release_claim
from dask_hpsearch.deploy.images import discard_image, ensure_image
from dask_hpsearch.exceptions import (
    ClusterError,
    HPSearchError,
    MissingBindingsError,
)
from dask_hpsearch.gcp.auth import write_kubeconfig

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.deploy.context import DeployContext
    from dask_hpsearch.gcp.gke.clusters import EnsuredCluster
    from dask_hpsearch.gcp.gke.state import GKECluster

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProvisionedCluster:
    """A GKE cluster on which Dask clusters can be started.

    Attributes
    ----------
    cluster : GKECluster
    created : bool
        Whether this call has created it.
    image : str
        By its digest.
    kubeconfig : Path
    """

    cluster: GKECluster
    created: bool
    image: str
    kubeconfig: Path


def provision(
    context: DeployContext, *, keep: bool = False, bind: bool = False
) -> ProvisionedCluster:
    """Find or create the image and the GKE cluster, and prepare it for Dask.

    Parameters
    ----------
    context : DeployContext
    keep : bool
        Whether to label the GKE cluster as one that stays.
    bind : bool
        Whether to set the IAM bindings of its pods, instead of printing commands.

    Raises
    ------
    MissingBindingsError
        If IAM bindings of its pods are missing. The GKE cluster and the image stay.
    HPSearchError
        If another step fails. What this call has created is removed.
    """
    spec, gke = context.spec, context.gke
    gke.check_name(spec.path)  # also permissions and APIs, before anything is created
    image = spec.image or ensure_image(context)
    try:
        ensured = gke.ensure(spec, keep=keep, claim=context.claim)
    except BaseException:
        discard_image(context)
        raise
    try:
        return _prepare(context, image, ensured, bind=bind)
    except MissingBindingsError:  # the owner may need a while: nothing is undone
        release_claim(context)
        raise
    except BaseException as error:
        roll_back(context, error, created=ensured.created)
        raise


def roll_back(context: DeployContext, error: BaseException, *, created: bool) -> None:
    """Remove what was just created, because of an error; leave what existed before.

    Parameters
    ----------
    context : DeployContext
    error : BaseException
        Gets a note that says what is left, if the removal fails too.
    created : bool
        Whether the GKE cluster was just created.
    """
    if not created:
        release_claim(context)
        return
    context.say("removing what was created")
    try:
        deprovision(context)
    except (HPSearchError, OSError) as second:
        left = (
            f"{context.spec.path} may be left behind ({second}): remove it with "
            "dask-hpsearch down"
        )
        _logger.warning("%s", left)
        if isinstance(error, HPSearchError):
            error.add_note(left)


def _prepare(
    context: DeployContext, image: str, ensured: EnsuredCluster, *, bind: bool
) -> ProvisionedCluster:
    if ensured.created and context.spec.image is None:
        image = ensure_image(context)  # removing an old GKE cluster may have removed it
    new = ensure_bindings(
        context,
        created=ensured.created,
        bind=bind,
        before_waiting=lambda: _place_reaper(context, image, ensured.cluster),
    )
    kubeconfig = write_kubeconfig(ensured.cluster)
    run_coroutine(
        lambda: bootstrap(
            context.spec,
            image,
            kubeconfig,
            say=context.say,
            timeout=context.timeout,
            bindings_are_new=new,
        )
    )
    return ProvisionedCluster(ensured.cluster, ensured.created, image, kubeconfig)


def _place_reaper(context: DeployContext, image: str, cluster: GKECluster) -> None:
    """Create the reaper before its bindings: it works as soon as they exist.

    So a GKE cluster whose bindings come after the client has given up has its reaper.
    """
    spec = context.spec
    if not spec.reaper:
        return
    sweep = f"dask-hpsearch sweep --project {spec.project}"
    try:
        kubeconfig = write_kubeconfig(cluster)
        run_coroutine(
            lambda: place_reaper(spec, image, kubeconfig, timeout=context.timeout)
        )
    except (ClusterError, OSError) as error:
        context.say(
            f"the reaper could not be created yet ({error}): until it works, only "
            f"{sweep} deletes the GKE cluster when it expires"
        )
        return
    context.say(
        "the reaper is in place, and works as soon as its bindings exist: until then, only "
        f"{sweep} deletes the GKE cluster when it expires"
    )
