"""Units of work on Dask: a cluster in this machine by default, any running scheduler by its address.

A unit is a frozen dataclass with a length and `halves()`. Its function is idempotent and returns a small record. A unit whose worker
dies each time is halved until the image that does it is alone; that image becomes a UnitFailure, and the rest is completed.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

import dask
import psutil

from ..manifests.errors import StageError
from ..stages.stage import UnitFailure

__all__ = ["Cluster", "default_workers"]

# How often one task may see its worker die before it counts as the cause (Dask's allowed-failures). This governs worker death;
# `retries` below governs exceptions, of which a passing fault of a network file system is the only kind worth one more try.
_ALLOWED_DEATHS = 1
_RETRIES = 1
_CRASHED = f"its worker process died {_ALLOWED_DEATHS + 1} times over it (out of memory, or a crash in a decoder)"
_BYTES_PER_WORKER = 2 * 2**30
# A terminal sends Ctrl-C to the workers too; this process stops them, and their tracebacks would bury what it says.
_IGNORE_INTERRUPT = """
import signal
def dask_setup(worker):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
"""


class _Unit(Protocol):
    def __len__(self) -> int: ...
    def halves(self) -> tuple[Self, Self]: ...


U = TypeVar("U", bound=_Unit)
R = TypeVar("R")


def default_workers() -> int:
    """One worker a core, as far as memory allows (a Faster R-CNN needs about 2 GB)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().total) // _BYTES_PER_WORKER))


def _on_worker(function: Callable[[U], R], unit: U) -> R:
    """One thread whatever the worker's share of the machine: a kernel may add up in another order with another number of threads."""
    import torch

    torch.set_num_threads(1)
    return function(unit)


class Cluster:
    """A context manager whose `map` starts the cluster when there is something to do."""

    def __init__(self, scheduler: str | None, workers: int | None, say: Callable[[str], None]) -> None:
        self._scheduler, self._workers, self._say = scheduler, workers or default_workers(), say
        self._client: Any = None
        self._cluster: Any = None

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        for part in (self._client, self._cluster):
            if part is not None:
                part.close()

    def map(self, function: Callable[[U], R], units: Sequence[U]) -> Iterator[tuple[U, R | UnitFailure]]:
        """Apply `function` to each unit, and yield (unit, result) as they complete. Raises what a unit raised, or StageError where the
        scheduler is lost; what was committed until then stays."""
        if not units:
            return
        from distributed import CancelledError, as_completed
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        client = self._connect(len(units))
        waiting: deque[U] = deque(units)
        running: dict[Any, U] = {}
        completed = as_completed(loop=client.loop)

        def submit() -> None:
            unit = waiting.popleft()
            future = client.submit(_on_worker, function, unit, pure=False, retries=_RETRIES)
            running[future] = unit
            completed.add(future)

        # A bounded window: the scheduler holds two tasks a worker, not the whole data set.
        for _ in range(min(len(waiting), 2 * max(1, len(client.scheduler_info(n_workers=-1)["workers"])))):
            submit()
        try:
            while running:
                future = next(completed)
                unit = running.pop(future)
                try:
                    result: Any = future.result()
                except KilledWorker:
                    if len(unit) > 1:
                        waiting.extendleft(reversed(unit.halves()))
                        submit()
                    else:
                        yield unit, UnitFailure(_CRASHED)
                else:
                    yield unit, result
                future.release()
                if waiting:
                    submit()
        except (CommClosedError, CancelledError, TimeoutError) as error:
            raise StageError(
                f"the Dask scheduler is gone ({type(error).__name__}); finished work is kept: run the same command again to resume"
            ) from error

    def _connect(self, units: int) -> Any:
        if self._client is not None:
            return self._client
        from distributed import Client, LocalCluster

        dask.config.set({"distributed.scheduler.allowed-failures": _ALLOWED_DEATHS})
        if self._scheduler is not None:
            try:
                self._client = Client(self._scheduler, timeout="10s", set_as_default=False)
            except (OSError, TimeoutError, ValueError) as error:
                raise StageError(f"no Dask scheduler answers at {self._scheduler} ({error}); start one with `dask scheduler`") from error
            self._client.run_on_scheduler(_set_allowed_failures, allowed=_ALLOWED_DEATHS)
            if not self._client.scheduler_info(n_workers=-1)["workers"]:
                self._say(f"waiting for a worker at {self._scheduler}: start one with `dask worker {self._scheduler} --nthreads 1`")
                self._client.wait_for_workers(1)
        else:
            # A killed worker is expected and handled; its log lines would only frighten.
            self._cluster = LocalCluster(
                n_workers=min(self._workers, units),
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # any free port: several runs may share a machine
                silence_logs=logging.CRITICAL,
                preload=[_IGNORE_INTERRUPT],
            )
            self._client = Client(self._cluster, set_as_default=False)
        if _has_dashboard():
            self._say(f"Dask dashboard: {self._client.dashboard_link}")
        return self._client


def _set_allowed_failures(dask_scheduler: Any, allowed: int) -> None:
    dask_scheduler.allowed_failures = allowed


def _has_dashboard() -> bool:
    from importlib.util import find_spec

    return find_spec("bokeh") is not None
