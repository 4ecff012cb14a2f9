"""Units of work on Dask: on a cluster in this machine by default, or on any running scheduler by its address.

A unit is a frozen dataclass with a length and `halves()`. Its function is idempotent and returns a small
record. If the worker of a unit dies or runs out of memory, the unit runs again alone. If that fails too, it
is halved until the one image that causes it is found; that image becomes a UnitFailure, and the rest is
completed.
"""

import logging
import os
import re
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any, Protocol, Self, TypeVar

import dask

from ...manifests.errors import InputError, StageError
from ...manifests.files import disk_error
from ...manifests.machine import usable_cores, usable_memory
from ...stages.base.tools import UnitFailure
from ...stages.vision.outcomes import out_of_memory
from .memory import keep_freed_memory

__all__ = ["Cluster", "check_address", "default_workers"]

# How many workers may die of one task before it counts as the cause (Dask's allowed-failures). `_RETRIES` is
# for exceptions; only a passing fault of a network file system is worth one more try.
_ALLOWED_DEATHS = 1
_RETRIES = 1
_CRASHED = (
    f"its worker process died {_ALLOWED_DEATHS + 1} times over it (out of memory, or a crash in a decoder)"
)
_TOO_LARGE = "it needs more memory than its worker may use"
_BYTES_PER_WORKER = 2 * 2**30
_GPU_BYTES_PER_WORKER = 3 * 2**30
_LOOK_SECONDS = 5.0  # after this long without a result, check whether there is a worker at all
_RESTART_SECONDS = 60.0  # a worker of our own that dies is back after a few seconds
_DASK = {
    "distributed.scheduler.allowed-failures": _ALLOWED_DEATHS,
    # A unit's result is a small record, so there is nothing to spill. A worker that pauses when its memory is
    # nearly full waits for its own results to go, and would wait for ever for memory that torch keeps. So it
    # continues, and beyond the last limit it is killed.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # This long after an earlier death, Dask gives up a worker that happens to be restarting, and then none is
    # left. Nannies never give up.
    "distributed.deploy.lost-worker-timeout": "10000h",
    # How long silence counts as a slow network before it counts as a machine that has lost its power.
    "distributed.comm.timeouts.tcp": "30s",
    # Profiling a worker's Python every 10 ms and its event loop every 20 ms takes 5% of a network's time
    # (benchmarks/extract_speed.py).
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}
_RECONNECT = "10s"
# Dask waits a while for what is no address at all, and then raises an error of its own.
_ADDRESS = re.compile(r"(?:[a-z]+://)?(?:[^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}/?")
# The complaints of destructors would bury the message of this process: HDF5 has one for every object of a
# file that does not fit on the disk. Pillow's warnings name no image.
_QUIET = """
import sys, warnings
def dask_setup(worker):
    warnings.filterwarnings("ignore", module=r"PIL\\.")
    sys.unraisablehook = lambda what: None
"""


class _Unit(Protocol):
    def __len__(self) -> int: ...
    def halves(self) -> tuple[Self, Self]: ...


U = TypeVar("U", bound=_Unit)
R = TypeVar("R")


def default_workers(device: str = "cpu") -> int:
    """Return one worker per core, as far as memory allows (a Faster R-CNN needs about 2 GB).

    On a GPU, several keep it busy, as each also decodes and launches; its memory sets the limit.
    """
    most = min(usable_cores(), usable_memory() // _BYTES_PER_WORKER)
    if device.startswith("cuda"):
        import torch

        most = min(most, torch.cuda.get_device_properties(device).total_memory // _GPU_BYTES_PER_WORKER)
    return max(1, most)


def _on_worker(function: Callable[[U], R], unit: U, started_in: str) -> R:
    """Run `function` on `unit` in a worker, on one thread whatever the worker's share of the machine.

    Another number of threads may make a kernel add up in another order, and processes of one thread each are
    faster than one process of many.
    """
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    with suppress(OSError):  # where there is no such folder, paths are absolute
        os.chdir(started_in)
    try:
        return function(unit)
    except Exception as error:
        # A pickled exception loses the ones that it was raised from.
        if (cause := disk_error(error)) is not None:
            raise OSError(cause.errno, cause.strerror, cause.filename) from error
        if out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise


@contextmanager
def _lost_scheduler() -> Iterator[None]:
    from distributed import CancelledError
    from distributed.comm.core import CommClosedError

    try:
        yield
    except (CommClosedError, CancelledError, TimeoutError) as error:
        raise StageError(
            f"the Dask scheduler is gone ({type(error).__name__}); finished work is kept: "
            "run the same command again to resume"
        ) from error


def check_address(scheduler: str) -> None:
    """Raise InputError for what cannot be the address of a scheduler."""
    if not _ADDRESS.fullmatch(scheduler):
        raise InputError(f"--scheduler {scheduler!r} is no address; give one such as tcp://host:8786")


class Cluster:
    """A context manager whose `map` starts the cluster when there is something to do."""

    def __init__(self, scheduler: str | None, workers: int | None, say: Callable[[str], None]) -> None:
        self._scheduler, self._workers, self._say = scheduler, workers, say
        self._client: Any = None
        self._cluster: Any = None
        self._loop: Any = None

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        for part in (self._client, self._cluster):
            if part is not None:
                part.close()
        if self._loop is not None:
            self._loop.stop()

    def map(self, function: Callable[[U], R], units: Sequence[U]) -> Iterator[tuple[U, R | UnitFailure]]:
        """Apply `function` to each unit, and yield (unit, result) as they complete.

        Raises what a unit raised, or StageError where the scheduler is lost. What was committed until then is
        kept.
        """
        if not units:
            return
        from distributed.scheduler import KilledWorker

        waiting = deque(range(len(units)))  # indices: a unit is made when its turn comes
        suspects: deque[U] = deque()
        running: dict[Any, U] = {}
        here = os.getcwd()  # noqa: PTH109  (it is pickled as plain text)
        with _lost_scheduler():
            client = self._connect(len(units), getattr(units[0], "device", "cpu"))
            # A bounded window: the scheduler holds two tasks per worker, not the whole data set.
            window = 2 * max(1, len(self._workers_at_work()))
        while waiting or suspects or running:
            # Dask blames a death on every task that its worker had been given, so only a unit that runs alone
            # is surely its cause. The other units must stay whole: which images go through a network together
            # affects the numbers.
            alone = bool(suspects) and not waiting and not running
            queue, most = (suspects, 1) if alone else (waiting, window)
            with _lost_scheduler():
                while queue and len(running) < most:
                    unit = suspects.popleft() if alone else units[waiting.popleft()]
                    running[client.submit(_on_worker, function, unit, here, pure=False, retries=_RETRIES)] = (
                        unit
                    )
                done = self._next(running)
            for future in done:
                unit = running.pop(future)
                try:
                    if future.status == "error":
                        future.result()  # the unit's own error, whatever its type
                    with _lost_scheduler():
                        try:
                            result: Any = future.result(timeout=_LOOK_SECONDS)
                        # Its worker died before the record was fetched, and it waits to be run again.
                        except TimeoutError:
                            running[future] = unit
                            continue
                except (KilledWorker, MemoryError) as error:
                    if not alone:
                        suspects.append(unit)
                    elif len(unit) > 1:
                        suspects.extendleft(reversed(unit.halves()))
                    else:
                        yield unit, UnitFailure(self._reason(error))
                else:
                    yield unit, result
                future.release()

    def _next(self, running: dict[Any, U]) -> list[Any]:
        """Return the futures that are done, as soon as one is, and report where no worker is left."""
        from distributed import wait

        alive, reported = time.monotonic(), False
        while True:
            try:
                with self._client.as_current():
                    return list(
                        wait(list(running), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED").done
                    )
            except TimeoutError:
                if self._workers_at_work():
                    alive, reported = time.monotonic(), False
                elif self._scheduler is None and time.monotonic() - alive > _RESTART_SECONDS:
                    raise StageError(
                        "no worker process stays alive (is the memory full?); finished work is kept: "
                        "run the same command again, with fewer --workers"
                    ) from None
                elif self._scheduler is not None and not reported:
                    self._say(
                        f"no worker is left at {self._scheduler}, or its memory is full: {self._start_one()}"
                    )
                    reported = True

    def _workers_at_work(self) -> list[str]:
        """Return the addresses of the workers that take tasks."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return [address for address, worker in workers.items() if worker["status"] == "running"]

    def _reason(self, error: Any) -> str:
        """Return why an image failed that ran alone.

        error: MemoryError, or KilledWorker, which knows the worker but not why it was killed.
        """
        if isinstance(error, MemoryError):
            return _TOO_LARGE
        killed = {event["worker"] for _, event in self._client.get_events("worker-restart-memory")}
        return _TOO_LARGE if error.last_worker.address in killed else _CRASHED

    def _start_one(self) -> str:
        return f"start one with `dask worker {self._scheduler} --nthreads 1`"

    def _connect(self, units: int, device: str) -> Any:
        if self._client is not None:
            return self._client
        from distributed import Client, LocalCluster

        dask.config.set(_DASK)
        # Killed workers and lost schedulers are expected and handled; the log lines would bury our one
        # sentence.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self._scheduler is not None:
            try:
                # A host that does not exist is known at once; Dask would try until its time is up.
                socket.getaddrinfo(self._scheduler.rpartition(":")[0].rpartition("/")[2].strip("[]"), None)
                self._client = Client(self._scheduler, timeout=_RECONNECT, set_as_default=False)
            except (OSError, TimeoutError, ValueError) as error:
                raise StageError(
                    f"no Dask scheduler answers at {self._scheduler} ({error}); "
                    "start one with `dask scheduler`"
                ) from error
            self._client.run_on_scheduler(_set_allowed_failures, allowed=_ALLOWED_DEATHS)
            if not self._workers_at_work():
                self._say(f"waiting for a worker at {self._scheduler}: {self._start_one()}")
                self._client.wait_for_workers(1)
        else:
            workers = min(self._workers or default_workers(device), units)
            self._loop = _started_loop()
            self._cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                loop=self._loop.loop,
                # Dask by default gives a worker a core's share of the memory, however few of the cores work.
                memory_limit=usable_memory() // workers,
                dashboard_address="127.0.0.1:0",  # any free port: several runs may share a machine
                silence_logs=logging.CRITICAL,
                preload=[_QUIET],
            )
            self._client = Client(self._cluster, set_as_default=False)
        if _has_dashboard():
            self._say(f"Dask dashboard: {self._client.dashboard_link}")
        return self._client


def _started_loop() -> Any:
    """Return a cluster's event loop, which runs in a thread of its own that Ctrl-C does not reach.

    Nor does it reach the processes that the thread starts. A terminal sends it to all of them, but it is this
    process that ends the workers, and what they say of it, above all while they start, would bury its
    sentence.
    """
    from distributed.utils import LoopRunner

    runner = LoopRunner(asynchronous=False)
    if os.name != "posix":
        runner.start()
        return runner
    # Python's process that cleans up after others would warn of each semaphore of a worker that was killed,
    # and it unblocks signals in the thread that starts it.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return runner


def _set_allowed_failures(dask_scheduler: Any, allowed: int) -> None:
    dask_scheduler.allowed_failures = allowed


def _has_dashboard() -> bool:
    from importlib.util import find_spec

    return find_spec("bokeh") is not None
