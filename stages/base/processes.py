"""Work that holds the interpreter lock, shared out among processes."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import Any, Protocol, TypeVar

from ...manifests.errors import StageError
from .ahead import in_threads

__all__ = ["Each", "in_processes", "one_by_one"]

Result = TypeVar("Result")


class Each(Protocol):
    """Applies a function to each item, and yields the results in the order of the items."""

    def __call__(self, function: Callable[[Any], Result], items: Sequence[Any]) -> Iterator[Result]: ...


def one_by_one(function: Callable[[Any], Result], items: Sequence[Any]) -> Iterator[Result]:
    """Apply a function to each item in this process."""
    yield from map(function, items)


@contextmanager
def in_processes(workers: int, doing: str) -> Iterator[Each]:
    """Give what applies a function to items in so many processes, each of which takes a second to start.

    doing: what they do, for an error. The first item that fails raises its error, as it would if all were
    done one after the other; StageError where a process has ended.
    """
    # Spawned, as a fork of a process with threads may find their locks held.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)

    def each(function: Callable[[Any], Result], items: Sequence[Any]) -> Iterator[Result]:
        yield from in_threads(partial(_done_elsewhere, pool, doing, function), items, threads=workers)

    try:
        yield each
    finally:
        pool.shutdown(cancel_futures=True)


def _done_elsewhere(
    pool: ProcessPoolExecutor, doing: str, function: Callable[[Any], Result], item: Any
) -> Result:
    """Return the result of a process of the pool. Raises StageError where one has ended before it."""
    try:
        return pool.submit(function, item).result()
    except BrokenProcessPool as error:
        raise StageError(
            f"a process that was {doing} has ended; was memory short? A script of your own must do this "
            'under `if __name__ == "__main__":`, as each process runs its other lines too'
        ) from error


def _begin() -> None:
    """Leave Ctrl-C to the command, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()
