"""The line before the model: one request at a time goes through it, in a thread, and few wait."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from .limits import Limits
from .refusal import Refusal

__all__ = ["Line"]

T = TypeVar("T")


class Line:
    """One thread for the model, and the places of the requests that wait for it."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self.taken = limits, 0
        self._thread = ThreadPoolExecutor(1, "model")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place from before a body is read, so that the bodies in memory are as few as the places.

        Raises Refusal where there is none.
        """
        if self.taken >= self._limits.line:
            raise Refusal(503, "The model is busy; try again in a moment.", Retry_After="1")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def through(self, request: Request, work: Callable[[], T]) -> T:
        """Return what the work returns. It is done in the thread when all before it is.

        Raises Refusal after the limit on time, and ClientDisconnect where the sender has gone: work that has
        not begun is then left undone.
        """
        # What has begun cannot be stopped: the thread is free when it ends, and the next one waits for that.
        done = asyncio.wrap_future(self._thread.submit(work))
        gone = asyncio.ensure_future(_gone(request))
        both: set[asyncio.Future[Any]] = {done, gone}
        try:
            first, _ = await asyncio.wait(
                both, timeout=self._limits.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if done in first:
                return done.result()
            if gone in first:
                raise ClientDisconnect
            raise Refusal(504, f"The model has not answered within {self._limits.seconds:g} seconds.")
        finally:
            gone.cancel()
            done.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
