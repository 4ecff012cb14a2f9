"""The server's process: slow connections are cut off, and a signal ends it at once."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...manifests.errors import Stopped
from ...manifests.files import remove_scratch
from .limits import Limits

__all__ = ["run"]


def run(app: ASGIApp, held: socket.socket, limits: Limits, ready: Callable[[], None]) -> None:
    """Serve the application until a signal ends the process. ready: called when connections are taken."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """End at once: there is nothing to be finished, and the kernel frees the socket."""
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, _end)
            yield

    class Protocol(_Patient):
        patience = limits.header_seconds
        longest = limits.body_seconds + limits.seconds + limits.header_seconds

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limits.connections,
    )
    Server(config).run([held])


class _Patient(H11Protocol):
    """A connection that is cut off where its other side is slow, for which uvicorn itself waits for ever.

    patience: seconds until the head of a request is there, and that a body may go on after it was answered.
    longest: seconds from there until the answer has been taken.
    """

    patience: float
    longest: float
    _cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(self.patience)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._wait(self.longest)
        elif self._cut is None:
            self._wait(self.patience)

    def on_response_complete(self) -> None:
        before = self.cycle
        super().on_response_complete()
        self._stop_waiting()  # uvicorn's own limit for the next request begins,
        if self.cycle is not before:  # unless that came together with this one
            self._wait(self.longest)

    def timeout_keep_alive_handler(self) -> None:
        """Close at once: what the other side has not taken by now would keep the connection."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._cut = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


def _end(number: int, frame: FrameType | None) -> None:
    """Say that the server ends, remove the images that it was given, and end it."""
    stopped = Stopped(number)
    try:
        os.write(2, f"\n{stopped.how}: the page is gone, and its port is free.\n".encode())
        remove_scratch()
    finally:
        os._exit(stopped.exit_code)
