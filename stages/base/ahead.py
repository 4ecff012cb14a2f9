"""Making the next items while the current one is being worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar, overload

from ...manifests.machine import usable_cores

__all__ = ["Made", "decoders", "in_threads", "prefetched"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield the same items in the same order, made up to `depth` ahead by a thread while the caller computes.

    Errors arrive in their place.
    """
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        waiting: list[Future[Any]] = [thread.submit(next, source, end) for _ in range(depth)]
        while (item := waiting.pop(0).result()) is not end:
            waiting.append(thread.submit(next, source, end))
            yield item
        for future in waiting:
            future.cancel()


class Made(Sequence[Item]):
    """A sequence whose items are made each time they are asked for.

    As objects, a million images with their boxes take gigabytes.
    """

    def __init__(self, length: int, make: Callable[[int], Item]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(self._length)[index]]
        return self._make(range(self._length)[index])


# Each thread holds one decoded image, at worst 0.7 GB of it, and there is nothing to gain beyond the cores.
_THREADS = min(4, usable_cores())


def decoders(device: str) -> int:
    """Return the threads that decode images for a worker whose network is on `device`.

    A GPU takes images faster than one thread decodes them; on a processor every core is a worker's.
    """
    return 1 if device.startswith("cpu") else _THREADS


def in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int = _THREADS,
    at_once: int = 1,
) -> Iterator[Result]:
    """Yield `function` of each item in the order of `items`, computed by a few threads.

    They are two items each ahead of the caller, or twice `at_once`, which a thread takes at a time where
    handing over one would take as long as the work. For work that lets go of the interpreter lock.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[list[Result]]] = deque()
    source = iter(items)
    try:
        while part := list(islice(source, at_once)):
            waiting.append(pool.submit(lambda part: [function(item) for item in part], part))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        # After Ctrl-C the items still queued would otherwise all be worked off first.
        pool.shutdown(cancel_futures=True)
