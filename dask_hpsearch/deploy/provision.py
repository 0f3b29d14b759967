"""The provisioned that a Dask cluster stands on: an image and a GKE cluster; and its removal."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.deploy.bootstrap import prepare
from dask_hpsearch.deploy.inspect import look_inside, scale
from dask_hpsearch.deploy.sync import run_apart
from dask_hpsearch.exceptions import (
    CloudError,
    CloudNotFoundError,
    ClusterError,
    HPSearchError,
)
from dask_hpsearch.gcp.auth import kubeconfig_path, write_kubeconfig
from dask_hpsearch.gcp.gke.clusters import GKEClusters
from dask_hpsearch.gcp.gke.labels import claims, is_ours, new_claim
from dask_hpsearch.gcp.gke.operations import Clock
from dask_hpsearch.gcp.images.images import ensure_image, remove_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.deploy.inspect import DaskState, Inside
    from dask_hpsearch.gcp.clients import CloudClients
    from dask_hpsearch.gcp.gke.state import GKECluster

_logger = logging.getLogger(__name__)

_LOOKS = 3
_LOOK_AGAIN_S = 5.0


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


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What was removed, and what is left.

    Attributes
    ----------
    gone, left : tuple of str
        Names of resources; those that are left say why.
    """

    gone: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Provisioner:
    """Brings up and takes down what a spec says.

    Attributes
    ----------
    spec : GKESpec
    clients : CloudClients
    say : callable
        Given a line at each step.
    options : mapping
        For `GKEClusters`: retry, limits, clock.
    timeout_s : float
        Seconds for each step inside Kubernetes.
    claim : str
        A label on the GKE cluster, by which others see that it is about to be used.
    """

    spec: GKESpec
    clients: CloudClients
    say: Callable[[str], None] = _logger.info
    options: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = 300.0
    claim: str = field(default_factory=new_claim)

    @property
    def gke(self) -> GKEClusters:
        """The project's GKE clusters."""
        return GKEClusters(
            self.clients.clusters, self.spec.project, say=self.say, **self.options
        )

    def provision(self, *, keep: bool = False) -> ProvisionedCluster:
        """Find or make the image and the GKE cluster, and prepare it for Dask.

        Parameters
        ----------
        keep : bool
            Whether the GKE cluster is to be marked as one that stays.

        Raises
        ------
        HPSearchError
            If any step fails; its kinds say why. What this call has created is gone.
        """
        spec = self.spec
        self.gke.check_name(spec.path)  # and rights, and APIs: before anything is made
        image = spec.image or self._image()
        try:
            ensured = self.gke.ensure(spec, keep=keep, claim=self.claim)
        except BaseException:
            self._forget_image()
            raise
        try:
            if ensured.created and spec.image is None:
                image = self._image()  # an old GKE cluster may have taken it along
            kubeconfig = write_kubeconfig(ensured.cluster)
            run_apart(
                lambda: prepare(
                    spec, image, kubeconfig, say=self.say, timeout_s=self.timeout_s
                )
            )
        except BaseException as error:
            self.give_up(error, created=ensured.created)
            raise
        return ProvisionedCluster(ensured.cluster, ensured.created, image, kubeconfig)

    def deprovision(self) -> Leftovers:
        """Remove the GKE cluster, and the images that it alone has used.

        Returns
        -------
        Leftovers

        Raises
        ------
        ForeignResourceError
            If the GKE cluster, or a pool of it, is not ours.
        CloudError
            If Google refuses or fails.
        """
        return self._tidied(gone=self.gke.delete(self.spec.path))

    def leave(self) -> None:
        """Take the GKE cluster down, unless others use it, or begin to at this moment.

        Raises
        ------
        ForeignResourceError, CloudError
            As for `deprovision`.
        """

        def is_in_use() -> bool:
            used = self.is_in_use()
            if not used:
                self.say(f"removing the GKE cluster {self.spec.name} and its image")
            return used

        if self.gke.delete_unused(self.spec.path, is_in_use):
            self._tidied(gone=True)
        else:
            self._release()

    def _tidied(self, *, gone: bool) -> Leftovers:
        """Remove what else there is of a GKE cluster."""
        spec = self.spec
        names = [spec.path] if gone else []
        with contextlib.suppress(OSError):
            kubeconfig_path(spec.path).unlink(missing_ok=True)
        removed = remove_images(spec, registry=self.clients.registry)
        names += removed.gone
        left = [f"{one}: others use it, or made it" for one in removed.kept]
        left += [
            f"{one.path}: another of our GKE clusters, {one.status}, of {one.owner}"
            for one in self.gke.list_ours()
        ]
        return Leftovers(tuple(names), tuple(left))

    def give_up(self, error: BaseException, *, created: bool) -> None:
        """Take down what has just been made, because of an error; leave what was there.

        If that fails too, an error of ours says what is left.
        """
        if not created:
            self._release()
            return
        self.say("removing what was made")
        try:
            self.deprovision()
        except (HPSearchError, OSError) as second:
            left = (
                f"Besides, {self.spec.path} may be left behind ({second}): remove it with "
                "dask-hpsearch down"
            )
            _logger.warning("%s", left)
            if isinstance(error, HPSearchError):
                error.add_note(left)

    def _release(self) -> None:
        """Let others see that it is no longer about to be used; in vain if it is gone."""
        try:
            self.gke.release(self.spec.path, self.claim)
        except CloudError as error:
            _logger.warning(
                "%s may stay longer than it is used: %s", self.spec.path, error
            )

    def inside(self) -> Inside:
        """Look what is on the GKE cluster.

        Raises
        ------
        CloudError
            If there is no such GKE cluster.
        ClusterError
            If Kubernetes does not tell.
        """
        file = self._kubeconfig()
        return run_apart(lambda: look_inside(file))

    def scale(self, dask: DaskState, workers: int) -> None:
        """Change how many workers a Dask cluster on it is to have.

        Raises
        ------
        CloudError, ClusterError
        """
        file = self._kubeconfig()
        run_apart(lambda: scale(file, dask, workers))

    def is_in_use(self) -> bool:
        """Whether there are Dask clusters or drivers on the GKE cluster, or are to be.

        If that cannot be told, it counts as in use: it may be others' work that would
        be lost, while a cluster that stays by mistake ends at the end of its time.
        """
        try:
            found = self.gke.find(self.spec.path)
            if found is None:
                return False
            if found.kept or claims(found.labels, self.clock.now()) - {self.claim}:
                self.say(f"{self.spec.name} stays: somebody is about to use it")
                return True
            inside = self._looked_inside()
        except CloudNotFoundError:
            return False
        except HPSearchError as error:
            self.say(
                f"{self.spec.name} stays, because it cannot be told who uses it ({error}): "
                "dask-hpsearch down removes it, at the latest its time to live does"
            )
            return True
        names = [*(one.name for one in inside.dask), *inside.drivers]
        if names:
            self.say(
                f"{self.spec.name} stays: Dask clusters are on it ({', '.join(names)})"
            )
        return bool(names)

    def _looked_inside(self) -> Inside:
        """Look inside, more than once if Kubernetes does not tell: connections break."""
        for _ in range(_LOOKS - 1):
            try:
                return self.inside()
            except ClusterError as error:
                _logger.warning("cannot tell who uses %s: %s", self.spec.path, error)
                self.clock.sleep(_LOOK_AGAIN_S)
        return self.inside()

    def _kubeconfig(self) -> Path:
        found = self.gke.find(self.spec.path)
        if found is None:
            msg = f"there is no GKE cluster {self.spec.path}: dask-hpsearch up makes it"
            raise CloudNotFoundError(msg)
        return write_kubeconfig(found)

    @property
    def clock(self) -> Clock:
        """What time it is."""
        clock: Clock = self.options.get("clock") or Clock()
        return clock

    def _image(self) -> str:
        return ensure_image(
            self.spec,
            builds=self.clients.builds,
            registry=self.clients.registry,
            say=self.say,
            wait=self.clock.sleep,
        )

    def _forget_image(self) -> None:
        """Remove the image again, unless there is a GKE cluster that uses it."""
        try:
            found = self.gke.find(self.spec.path)
            free = found is None or not is_ours(found.labels)
            if free and self.spec.image is None:
                remove_images(self.spec, registry=self.clients.registry)
        except CloudError as error:
            _logger.warning("images may be left behind: %s", error)
