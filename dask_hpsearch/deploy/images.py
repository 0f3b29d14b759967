"""The container image of a deployment: built if necessary, discarded if unused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import CloudError
from dask_hpsearch.gcp.gke.labels import is_managed
from dask_hpsearch.gcp.images import images

if TYPE_CHECKING:
    from dask_hpsearch.deploy.context import DeployContext

_logger = logging.getLogger(__name__)


def ensure_image(context: DeployContext) -> str:
    """Return the image of the spec, by its digest; built if there is none.

    Raises
    ------
    ImageBuildError, CloudError, StoreError
    """
    return images.ensure_image(
        context.spec,
        builds=context.clients.builds,
        registry=context.clients.registry,
        say=context.say,
        wait=context.clock.sleep,
    )


def discard_image(context: DeployContext) -> None:
    """Remove the image again, unless a managed GKE cluster uses it.

    An error is logged: this is a step after another error.
    """
    spec = context.spec
    try:
        found = context.gke.find(spec.path)
        unused = found is None or not is_managed(found.labels)
        if unused and spec.image is None:
            images.remove_images(spec, registry=context.clients.registry)
    except CloudError as error:
        _logger.warning("images may be left behind: %s", error)
