"""Mutual TLS with a real scheduler: who belongs gets in, and nobody else."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from distributed import Client
from distributed.security import Security

from dask_hpsearch.clusters import tls
from dask_hpsearch.exceptions import ClusterAccessError, ClusterUnreachableError
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT = "2s"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return certificates of a cluster, of another one, and expired ones."""
    long_ago = dt.datetime.now(tz=dt.UTC) - dt.timedelta(days=30)
    made = {
        "own": tls.issue("own"),
        "foreign": tls.issue("foreign"),
        "expired": tls.issue("own", now=long_ago, life=dt.timedelta(days=1)),
    }
    found = {}
    for name, certificates in made.items():
        found[name] = tmp_path_factory.mktemp(name) / "certificates"
        certificates.save(found[name])
    return found


def start_scheduler(folder: Path | None) -> subprocess.Popen[str]:
    """Start a scheduler of Dask's own program, as pods have it."""
    environment = dict(os.environ)
    if folder is not None:
        environment |= tls.pod_environment("scheduler", str(folder))
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "distributed.cli.dask_scheduler"),
            *("--host", "127.0.0.1", "--port", "0"),
            *("--dashboard-address", "127.0.0.1:0", "--no-dashboard"),
        ],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def scheduler(folder: Path | None) -> Iterator[str]:
    """Run a scheduler, and give its address."""
    process = start_scheduler(folder)
    assert process.stderr is not None
    try:
        address = next(
            line.split()[-1] for line in process.stderr if "Scheduler at:" in line
        )
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        yield address
    finally:
        process.terminate()
        process.wait()
        drain.join()
        process.stderr.close()


@pytest.fixture(scope="module")
def address(folders: dict[str, Path]) -> Iterator[str]:
    """Run the cluster's scheduler."""
    with scheduler(folders["own"]) as found:
        yield found


def security_of(folder: Path, role: tls.Role = "client") -> Security:
    """Return a security that shows a folder's certificate as any role's."""
    ca, certificate, key = (str(folder / name) for name in tls.role_files(role))
    parts = {
        f"tls_{part}_{what}": path
        for part in tls.ROLES
        for what, path in (("cert", certificate), ("key", key))
    }
    return Security(require_encryption=True, tls_ca_file=ca, **parts)


def one_sided(own: Path, other: Path) -> Security:
    """Return a security that trusts one cluster and shows another's certificate."""
    theirs = security_of(other)
    return Security(
        require_encryption=True,
        tls_ca_file=str(own / tls.CA_FILE),
        tls_client_cert=theirs.tls_client_cert,
        tls_client_key=theirs.tls_client_key,
    )


def clients_of(address: str, folder: Path) -> int:
    """Count the clients that the scheduler has let in, this one apart."""
    with Client(address, security=tls.client_security(folder), timeout="20s") as client:
        return (
            client.run_on_scheduler(
                lambda dask_scheduler: len(
                    [
                        name
                        for name in dask_scheduler.clients
                        if name.startswith("Client-")
                    ]
                )
            )
            - 1
        )


def test_the_clusters_own_client_and_worker_get_in(
    address: str, folders: dict[str, Path]
) -> None:
    """A fit's way: client, scheduler and worker, each with its certificate."""
    environment = os.environ | tls.pod_environment("worker", str(folders["own"]))
    worker = subprocess.Popen(
        [
            *(sys.executable, "-m", "distributed.cli.dask_worker", address),
            *("--no-nanny", "--nthreads", "1", "--no-dashboard"),
            *("--dashboard-address", "127.0.0.1:0"),
        ],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        tls.check_scheduler(address, tls.client_security(folders["own"]))
        with Client(address, security=tls.client_security(folders["own"])) as client:
            client.wait_for_workers(1, timeout=30)
            assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    finally:
        worker.terminate()
        worker.wait()


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        ("foreign", "not from the cluster's authority"),
        ("expired", "expired"),
        ("foreign to a trusted scheduler", "not of this cluster"),
        ("none", "requires one of its certificates"),
    ],
)
def test_another_certificate_is_refused_in_words(
    address: str, folders: dict[str, Path], shown: str, says: str
) -> None:
    """Neither side takes the other, and the error says whose fault it is."""
    security = {
        "foreign": lambda: security_of(folders["foreign"]),
        "expired": lambda: security_of(folders["expired"]),
        "foreign to a trusted scheduler": lambda: one_sided(
            folders["own"], folders["foreign"]
        ),
        "none": lambda: Security(
            require_encryption=True, tls_ca_file=str(folders["own"] / tls.CA_FILE)
        ),
    }[shown]()

    with pytest.raises(ClusterAccessError, match=says):
        tls.check_scheduler(address, security)


@pytest.mark.parametrize("shown", ["foreign", "expired"])
def test_dasks_own_client_does_not_get_in_either(
    address: str, folders: dict[str, Path], shown: str
) -> None:
    """The scheduler refuses it, whatever the client thinks of the scheduler."""
    security = one_sided(folders["own"], folders[shown])

    with pytest.raises((OSError, AssertionError)):
        Client(address, security=security, timeout=TIMEOUT, set_as_default=False)

    assert clients_of(address, folders["own"]) == 0


def test_what_the_own_authority_made_and_has_expired_is_refused(tmp_path: Path) -> None:
    """By us in words; and the scheduler takes no such client, whatever it thinks."""
    authority = Authority("own")
    authority.issue().save(tmp_path / "valid")
    authority.issue(expired=True).save(tmp_path / "expired")
    expired = tls.client_security(tmp_path / "expired")

    with scheduler(tmp_path / "valid") as address:
        tls.check_scheduler(address, tls.client_security(tmp_path / "valid"))
        with pytest.raises(ClusterAccessError, match="expired at"):
            tls.check_scheduler(address, expired)
        with pytest.raises((OSError, AssertionError)):
            Client(address, security=expired, timeout=TIMEOUT, set_as_default=False)
        assert clients_of(address, tmp_path / "valid") == 0


def test_plain_tcp_is_refused(address: str, folders: dict[str, Path]) -> None:
    """Without TLS there is no conversation at all."""
    plain = address.replace("tls://", "tcp://")

    with pytest.raises(ClusterAccessError, match="not for TLS"):
        tls.check_scheduler(plain, tls.client_security(folders["own"]))
    with pytest.raises(OSError, match=r"reset|Timed out"):
        Client(plain, timeout=TIMEOUT, set_as_default=False)

    assert clients_of(address, folders["own"]) == 0


@pytest.mark.parametrize("shown", ["foreign", "expired"])
def test_a_foreign_worker_does_not_join(
    address: str, folders: dict[str, Path], shown: str
) -> None:
    """Our worker's program says why, and ends."""
    environment = os.environ | tls.pod_environment("worker", str(folders[shown]))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dask_hpsearch.clusters.kubernetes.worker_pod"),
            *("--slots", "1", "--memory", "1000000000", "--notice", "1"),
            *("--http-port", "0", "--scratch", str(folders[shown])),
        ],
        env=environment | {"DASK_SCHEDULER_ADDRESS": address},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 3
    assert "refused: " in done.stderr
    security = tls.client_security(folders["own"])
    with Client(address, security=security) as client:
        assert client.scheduler_info()["workers"] == {}


def test_a_fake_scheduler_without_tls_is_told(folders: dict[str, Path]) -> None:
    """Whoever takes the scheduler's place is not spoken to."""
    with scheduler(None) as plain:
        fake = plain.replace("tcp://", "tls://")

        with pytest.raises(ClusterAccessError, match="does not speak TLS"):
            tls.check_scheduler(fake, tls.client_security(folders["own"]))


def test_a_fake_scheduler_of_another_cluster_is_told(folders: dict[str, Path]) -> None:
    """A scheduler with a certificate, but not with ours, is not spoken to."""
    with (
        scheduler(folders["foreign"]) as fake,
        pytest.raises(ClusterAccessError, match="is not this cluster's scheduler"),
    ):
        tls.check_scheduler(fake, tls.client_security(folders["own"]))


def test_one_who_says_nothing_is_told(folders: dict[str, Path]) -> None:
    """A port that accepts and keeps silent does not hold the client up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"tls://127.0.0.1:{server.getsockname()[1]}"

        with pytest.raises(ClusterUnreachableError, match="does not respond like"):
            tls.check_scheduler(
                silent, tls.client_security(folders["own"]), timeout=0.2
            )


def test_a_scheduler_on_a_slow_way_is_found(folders: dict[str, Path]) -> None:
    """Each try waits longer than the one before."""
    with (
        scheduler(folders["own"]) as address,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        thread = threading.Thread(target=forward_slowly, args=(server, address))
        thread.start()
        slow = f"tls://127.0.0.1:{server.getsockname()[1]}"
        security = tls.client_security(folders["own"])
        tries = 0
        for timeout in tls.response_timeouts():
            tries += 1
            try:
                tls.check_scheduler(slow, security, timeout=timeout)
            except ClusterUnreachableError:
                continue
            break
        server.shutdown(socket.SHUT_RDWR)
        thread.join()

    assert tries > 1


def forward_slowly(server: socket.socket, address: str) -> None:
    """Pass on what the first client after each pause of three seconds has to say."""
    host, _, port = address.removeprefix("tls://").rpartition(":")
    with contextlib.suppress(OSError):
        while True:
            one, _ = server.accept()
            time.sleep(3)
            with one, socket.create_connection((host, int(port))) as other:
                back = threading.Thread(target=copy, args=(other, one))
                back.start()
                copy(one, other)
                back.join()


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Pass on bytes until either side has closed."""
    with contextlib.suppress(OSError):
        while data := source.recv(2**14):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def test_an_empty_port_may_be_tried_again(folders: dict[str, Path]) -> None:
    """A scheduler that is just starting is no stranger."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        empty = f"tls://127.0.0.1:{server.getsockname()[1]}"

    with pytest.raises(ClusterUnreachableError):
        tls.check_scheduler(empty, tls.client_security(folders["own"]))


def test_certificates_are_their_owners_alone(folders: dict[str, Path]) -> None:
    """Nobody else on this machine can read them."""
    folder = folders["own"]

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_loose_folder_is_closed(tmp_path: Path) -> None:
    """A folder and files that others could read are not left so."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    (folder / "client.key").write_text("old")
    (folder / "client.key").chmod(0o644)

    tls.issue("x").of("client").save(folder)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "client.key").stat().st_mode) == 0o600


def test_a_role_gets_its_own_key_alone() -> None:
    """What a worker's pod mounts has no key of the scheduler, nor of the authority."""
    files = tls.issue("x").of("worker").files

    assert sorted(files) == ["ca.crt", "worker.crt", "worker.key"]
    assert "PRIVATE" not in files["ca.crt"]


def test_no_key_is_shown() -> None:
    """A repr in a log gives nothing away."""
    assert "PRIVATE" not in repr(tls.issue("x"))


def test_missing_certificates_are_told(tmp_path: Path) -> None:
    """The error says where they were looked for."""
    with pytest.raises(ClusterAccessError, match=r"ca\.crt"):
        tls.client_security(tmp_path)
