"""A fit that cannot reach the internet from a private node is told why, and the way out."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests
from distributed import Client
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.exceptions import RunFailedError
from dask_hpsearch.messages import CLOUD_NAT_VARIABLE
from dask_hpsearch.slots.no_internet import explain
from tests.estimators import flowers
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

X, y = flowers()
COMMAND = "gcloud compute routers create dask-hpsearch --project=some-project"
SENTENCE = "reach the internet only through Cloud NAT"
NOWHERE = "nothing.invalid"  # a name that nobody can resolve
TEST_NET = "192.0.2.1"  # an address that nobody has


def closed_port() -> int:
    """Return a port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def connect(host: str, port: int = 80) -> None:
    """Connect as most libraries do."""
    socket.create_connection((host, port), timeout=0.3)


def open_url(host: str, port: int = 80) -> None:
    """Download with the standard library."""
    urllib.request.urlopen(f"http://{host}:{port}/weights", timeout=0.3)


def get(host: str, port: int = 80) -> None:
    """Download with requests."""
    requests.get(f"http://{host}:{port}/weights", timeout=0.3)


def stream(host: str, port: int = 80) -> None:
    """Connect with asyncio."""

    async def open_stream() -> None:
        async with asyncio.timeout(0.3):
            await asyncio.open_connection(host, port)

    asyncio.run(open_stream())


def wrap(host: str, port: int = 80) -> None:
    """Fail as a library does that has an error of its own."""
    try:
        open_url(host, port)
    except OSError as error:
        message = "the weights could not be loaded"
        raise LookupError(message) from error


def replace(host: str, port: int = 80) -> None:
    """Fail as code does that forgets the cause."""
    try:
        get(host, port)
    except requests.RequestException:
        message = "no weights"
        raise RuntimeError(message) from None


def gather(host: str, port: int = 80) -> None:
    """Fail as several downloads at once do."""
    try:
        connect(host, port)
    except OSError as error:
        message = "downloads"
        raise ExceptionGroup(message, [error]) from None


WAYS = (connect, open_url, get, wrap, replace, gather)


def notes_of(act: Callable[[], Any]) -> list[str]:
    """Return the notes that are added to the error of a function."""
    with pytest.raises(Exception) as raised:
        act()
    explain(raised.value)
    explain(raised.value)  # once is enough
    return list(getattr(raised.value, "__notes__", []))


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a node without an external address."""
    monkeypatch.setenv(CLOUD_NAT_VARIABLE, COMMAND)


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize("host", [NOWHERE, TEST_NET])
@pytest.mark.parametrize("way", [*WAYS, stream])
def test_a_failed_download_has_one_sentence_more(
    way: Callable[[str], None], host: str
) -> None:
    """Whichever library has tried, and however its error is wrapped."""
    (note,) = notes_of(lambda: way(host))

    assert SENTENCE in note
    assert "gs://" in note
    assert note.endswith(COMMAND)


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize("way", WAYS)
def test_a_host_that_is_not_on_the_internet_is_another_matter(
    way: Callable[[str, int], None],
) -> None:
    """Cloud NAT would not help a service of the cluster that is down."""
    assert notes_of(lambda: way("127.0.0.1", closed_port())) == []
    assert notes_of(lambda: way("redis.tools.svc.cluster.local", 6379)) == []


@pytest.mark.usefixtures("private")
def test_other_errors_are_as_they_were() -> None:
    """A time-out of something else is no failed connection."""

    def wait() -> None:
        async def never() -> None:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()

        asyncio.run(never())

    class StrangeError(OSError):
        @property
        def errno(self) -> int:
            raise SystemError

    def act() -> None:
        raise StrangeError

    for one in (wait, act, lambda: {}["x"]):
        assert notes_of(one) == []


@pytest.mark.parametrize("way", WAYS)
def test_nodes_with_a_way_to_the_internet_need_no_sentence(
    way: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of this machine, and of a GKE cluster with external addresses."""
    monkeypatch.delenv(CLOUD_NAT_VARIABLE, raising=False)

    assert notes_of(lambda: way(NOWHERE)) == []


def test_pods_are_told_where_nodes_have_no_external_address() -> None:
    """With the commands for their network, which may be another project's."""
    image = "example.org/image:1.0"
    network = {"network": "projects/host-project/global/networks/shared"}

    private = spec(network=network).cluster_spec(image).environment
    public = spec(network={"private_nodes": False}).cluster_spec(image).environment

    create, nat = private[CLOUD_NAT_VARIABLE].split(" && ")
    assert create == (
        "gcloud compute routers create dask-hpsearch --project=host-project "
        "--region=europe-west4 --network=shared"
    )
    assert nat.startswith("gcloud compute routers nats create dask-hpsearch ")
    assert "--project=host-project --region=europe-west4 --router=dask-hpsearch" in nat
    assert CLOUD_NAT_VARIABLE not in public


class Downloads(ClassifierMixin, BaseEstimator):
    """Needs weights that it downloads: in its fit, or when it predicts."""

    def __init__(self, host: str = NOWHERE, *, late: bool = False) -> None:
        self.host = host
        self.late = late

    def fit(self, X: Any, y: Any) -> Self:
        """Download in time, or do not."""
        del X
        self.classes_ = sorted(set(y))
        if not self.late:
            open_url(self.host)
        return self

    def predict(self, X: Any) -> Any:
        """Download late."""
        del X
        return open_url(self.host)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A worker on a private node, as far as it knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CLOUD_NAT_VARIABLE, COMMAND)
        with (
            local_cluster(1, 2, dashboard_address=":0") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client


def test_a_search_of_which_no_fit_succeeds_says_it(client: Client) -> None:
    """scikit-learn's error has the texts of the fits' errors, and their notes."""
    search = GridSearchCV(Downloads(), {"host": [NOWHERE, TEST_NET]}, cv=2)

    with pytest.raises(ValueError, match="All the 4 fits failed") as raised:
        DaskSearchCV(search, client=client).fit(X, y)

    assert SENTENCE in str(raised.value)
    assert COMMAND in str(raised.value)


def test_a_search_that_goes_on_warns_of_it(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A fit that fails is told by scikit-learn's warning, a score by that of the slot."""
    space = {"late": [True, False]}
    search = GridSearchCV(Downloads(), space, cv=2, error_score=0.5, refit=False)

    with pytest.warns(FitFailedWarning, match=SENTENCE):
        found = DaskSearchCV(search, client=client).fit(X, y)

    assert found.cv_results_["mean_test_score"].tolist() == [0.5, 0.5]
    scored = [line for line in caplog.messages if "Scoring failed" in line]
    assert scored
    assert all(SENTENCE in line for line in scored)


def test_an_error_that_ends_the_search_says_it(client: Client) -> None:
    """As a note of the exception, which keeps its type."""
    search = GridSearchCV(Downloads(), {"host": [NOWHERE]}, cv=2, error_score="raise")

    with pytest.raises(OSError, match="Name or service not known") as raised:
        DaskSearchCV(search, client=client).fit(X, y)

    assert any(SENTENCE in note for note in raised.value.__notes__)


def test_a_submitted_search_that_fails_says_it(client: Client, tmp_path: Path) -> None:
    """The journal has the sentence, as it has the error's own text."""
    search = GridSearchCV(Downloads(), {"host": [NOWHERE]}, cv=2, error_score="raise")
    store = tmp_path / "store"

    run = DaskSearchCV(search, client=client, store=store).submit(X, y)

    with pytest.raises(RunFailedError, match=SENTENCE) as raised:
        run.result(100)
    assert "Name or service not known" in str(raised.value)
