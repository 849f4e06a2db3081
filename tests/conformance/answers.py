"""The transcript of what a server answers: each call with its answer, as the client's own messages print them.

Goes into the file named by ANSWERS, which `cargo xtask conformance` compares with that of etcd. Only single calls are
written by themselves; what comes in streams depends on timing, so scripts write the events and not their packets.
"""

import os
from contextlib import contextmanager

import grpc

LINE_MAX = 1000
OUTPUT = open(os.environ.get("ANSWERS", os.devnull), "w", encoding="utf-8")
PAUSED = [0]


def show(name, value):
    """One step."""
    if PAUSED[0]:
        return
    for line in [f"== {name}", *str(value).splitlines()]:
        OUTPUT.write(line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]}... {len(line)} characters")
        OUTPUT.write("\n")
    OUTPUT.flush()


@contextmanager
def paused():
    """What runs meanwhile takes turns that differ from run to run."""
    PAUSED[0] += 1
    try:
        yield
    finally:
        PAUSED[0] -= 1


def method_of(details):
    method = details.method
    return method.decode() if isinstance(method, bytes) else method


def described(error):
    return f"{error.code()} {error.details()}"


class Recorder(grpc.UnaryUnaryClientInterceptor):
    """Between a client and its channel."""

    def intercept_unary_unary(self, continuation, details, request):
        answered = continuation(details, request)
        error = answered.exception()
        show(f"{method_of(details)} {request}".replace("\n", " "), described(error) if error else answered.result())
        return answered


class AsyncRecorder(grpc.aio.UnaryUnaryClientInterceptor):
    """The same for asyncio."""

    async def intercept_unary_unary(self, continuation, details, request):
        call = await continuation(details, request)
        name = f"{method_of(details)} {request}".replace("\n", " ")
        try:
            show(name, await call)
        except grpc.RpcError as error:
            show(name, described(error))
        return call
