"""Serves fakes over gRPC on loopback: calls are kept, and may be made to fail."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.longrunning import operations_pb2
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.fakes.rights import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

OPERATIONS = "google.longrunning.Operations"


class Refused(Exception):  # noqa: N818 (a refusal)
    """What a service answers instead of a result.

    Parameters
    ----------
    code : str
        As ``"PERMISSION_DENIED"``.
    message : str
    reason : str
        Of the ``ErrorInfo`` that Google adds, as ``"SERVICE_DISABLED"``.
    **metadata
        Of the same.
    """

    def __init__(
        self, code: str, message: str, reason: str = "", **metadata: str
    ) -> None:
        super().__init__(message)
        self.status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
        if reason:
            info = error_details_pb2.ErrorInfo(
                reason=reason, domain="googleapis.com", metadata=metadata
            )
            detail = any_pb2.Any()
            detail.Pack(info)
            self.status.details.append(detail)


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service: its messages, and what answers it."""

    request: Any
    answer: Any
    function: Callable[[Any], Any]


class Service(Protocol):
    """What can be served."""

    name: str

    def methods(self) -> Mapping[str, Method]:
        """Methods by their names."""


@dataclass(slots=True)
class _Fault:
    refusal: Refused
    times: int
    after: bool


@dataclass(slots=True)
class Traffic:
    """Which calls came, and which of those to come fail.

    Attributes
    ----------
    calls : list of (str, message)
        Name of the method and its request, in order.
    quota_projects : list of str
        The header ``x-goog-user-project`` of each of them; empty if it was missing.
    lacking : set of str
        Permissions that the caller has not.
    """

    calls: list[tuple[str, Any]] = field(default_factory=list)
    quota_projects: list[str] = field(default_factory=list)
    lacking: AbstractSet[str] = frozenset()
    faults: dict[str, list[_Fault]] = field(default_factory=lambda: defaultdict(list))
    _at: dict[int, Refused] = field(default_factory=dict)

    def fail(
        self, method: str, refusal: Refused, *, times: int = 1, after: bool = False
    ) -> None:
        """Let the next calls of a method fail.

        Parameters
        ----------
        method : str
            Its name; ``"*"`` for any.
        refusal : Refused
        times : int
            How many calls.
        after : bool
            Whether what was asked for happens all the same, as when an answer is lost.
        """
        self.faults[method].append(_Fault(refusal, times, after))

    def fail_at(self, number: int, refusal: Refused) -> None:
        """Let the call fail before which so many came; those of `calls` count."""
        self._at = {number: refusal}

    def named(self, method: str) -> list[Any]:
        """Requests of a method that came so far."""
        return [request for name, request in self.calls if name == method]

    def answer(self, name: str, method: Method, request: Any) -> Any:
        """Note a call and answer it, or refuse."""
        refusal = self._at.pop(len(self.calls), None)
        self.calls.append((name, request))
        if refusal is not None:
            raise refusal
        self._check_rights(name)
        fault = self._due(name)
        if fault is not None and not fault.after:
            raise fault.refusal
        answer = method.function(request)
        if fault is not None:
            raise fault.refusal
        return answer

    def _check_rights(self, name: str) -> None:
        permission = METHODS.get(name, "")
        if permission in self.lacking:
            message = f"Permission '{permission}' denied."
            reason = "IAM_PERMISSION_DENIED"
            raise Refused("PERMISSION_DENIED", message, reason, permission=permission)

    def _due(self, name: str) -> _Fault | None:
        for key in (name, "*"):
            for fault in self.faults[key]:
                if fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


class Operations:
    """Long-running operations: under way for some looks, then done."""

    name = OPERATIONS

    def __init__(self) -> None:
        self._kept: dict[str, operations_pb2.Operation] = {}
        self._looks: dict[str, int] = {}

    def methods(self) -> dict[str, Method]:
        """Answer for the one method that clients call."""
        request, answer = operations_pb2.GetOperationRequest, operations_pb2.Operation
        return {"GetOperation": Method(request, answer, self._get)}

    def begin(
        self,
        name: str,
        result: Any,
        *,
        metadata: Any = None,
        error: Refused | None = None,
        looks: int = 0,
    ) -> operations_pb2.Operation:
        """Begin an operation that ends with a result or an error.

        Parameters
        ----------
        name : str
        result : message
        metadata : message, optional
        error : Refused, optional
            How it ends instead.
        looks : int
            How often it is still under way when it is looked at.
        """
        operation = operations_pb2.Operation(name=name)
        if metadata is not None:
            operation.metadata.Pack(raw(metadata))
        begun = operations_pb2.Operation()
        begun.CopyFrom(operation)
        operation.done = True
        if error is not None:
            operation.error.CopyFrom(error.status)
        else:
            operation.response.Pack(raw(result))
        self._kept[name] = operation
        self._looks[name] = looks
        return begun

    def _get(self, request: Any) -> operations_pb2.Operation:
        operation = self._kept.get(request.name)
        if operation is None:
            raise Refused("NOT_FOUND", f"no operation {request.name}")
        if self._looks[request.name] > 0:
            self._looks[request.name] -= 1
            return operations_pb2.Operation(name=operation.name)
        return operation


def raw(message: Any) -> Any:
    """Return a message as protobuf's own class knows it."""
    kind = type(message)
    return kind.pb(message) if hasattr(kind, "pb") else message


@contextlib.contextmanager
def serving(
    traffic: Traffic,
    *services: Service,
    certificate: grpc.ServerCredentials | None = None,
    address: str = "127.0.0.1:0",
) -> Iterator[str]:
    """Serve fakes while the context lasts.

    Parameters
    ----------
    traffic : Traffic
    *services : Service
    certificate : ServerCredentials, optional
        Of ``localhost``; without one they are served in plain text.
    address : str
        Where; by default on a free port of the loopback device.

    Yields
    ------
    str
        Host and port.
    """
    lock = threading.Lock()  # a fake's state is changed by one call at a time
    with ThreadPoolExecutor(4, thread_name_prefix="fake-google") as threads:
        server = grpc.server(threads)
        for service in services:
            handlers = {
                name: _handler(traffic, name, method, lock)
                for name, method in service.methods().items()
            }
            handler = grpc.method_handlers_generic_handler(service.name, handlers)
            server.add_generic_rpc_handlers((handler,))
        if certificate is None:
            host, port = "127.0.0.1", server.add_insecure_port(address)
        else:
            host, port = "localhost", server.add_secure_port(address, certificate)
        server.start()
        try:
            yield f"{host}:{port}"
        finally:
            server.stop(None).wait()


def _handler(
    traffic: Traffic, name: str, method: Method, lock: threading.Lock
) -> grpc.RpcMethodHandler:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            headers = dict(context.invocation_metadata() or ())
            with lock:
                traffic.quota_projects.append(headers.get("x-goog-user-project", ""))
                return traffic.answer(name, method, request)
        except Refused as refusal:
            context.abort_with_status(rpc_status.to_status(refusal.status))

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=_reader(method.request),
        response_serializer=_writer(method.answer),
    )


def _reader(kind: Any) -> Callable[[bytes], Any]:
    """Return what reads a message: Google's clients have two kinds of classes."""
    return kind.deserialize if hasattr(kind, "deserialize") else kind.FromString


def _writer(kind: Any) -> Callable[[Any], bytes]:
    if hasattr(kind, "serialize"):
        return kind.serialize
    return lambda message: message.SerializeToString()
