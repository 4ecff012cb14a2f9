"""Making what comes next while what is there is being worked on."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["prefetched"]

Item = TypeVar("Item")


def prefetched(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """The same items in the same order, made up to `depth` ahead by a thread while the caller computes. Errors arrive in their place."""
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        waiting: list[Future[Any]] = [thread.submit(next, source, end) for _ in range(depth)]
        while (item := waiting.pop(0).result()) is not end:
            waiting.append(thread.submit(next, source, end))
            yield item
        for future in waiting:
            future.cancel()
