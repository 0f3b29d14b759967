"""Time that ``dask-hpsearch doctor`` takes where each answer of Google takes 100 ms."""

from __future__ import annotations

import time

from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession

from dask_hpsearch.gcp.doctor.doctor import examine
from dask_hpsearch.gcp.rest import GoogleRest, with_retries
from tests.fakes.project import SERVICES, FakeProject, project_at
from tests.gcp.specs import spec

LATENCY = 0.1


def main() -> None:
    """Print time and number of requests, for a project that has everything."""
    project = FakeProject(latency=LATENCY)
    with (
        project_at(project) as url,
        AuthorizedSession(AnonymousCredentials()) as session,
    ):
        rest = GoogleRest(with_retries(session), dict.fromkeys(SERVICES, url))
        start = time.perf_counter()
        report = examine(spec(), rest=rest)
        seconds = time.perf_counter() - start
    print(f"{seconds:.1f} s for {len(project.seen)} requests; {report}")


if __name__ == "__main__":
    main()
