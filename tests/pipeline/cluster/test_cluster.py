"""Units of work on a real Dask cluster, with real processes that die."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import cloudpickle
import pytest
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.pipeline.cluster.dask import Cluster
from hmnet_pipe.stages.base.tools import UnitFailure

from ... import running

pytestmark = pytest.mark.slow

# Workers cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Numbers:
    """A unit that writes each of its numbers to a folder; a negative one kills the process at work on it."""

    folder: str
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def halves(self) -> "tuple[Numbers, Numbers]":
        middle = len(self.numbers) // 2
        return replace(self, numbers=self.numbers[:middle]), replace(self, numbers=self.numbers[middle:])


def write_numbers(unit: Numbers) -> int:
    for number in unit.numbers:
        if number < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        (Path(unit.folder) / str(number)).write_text(f"{os.getpid()}")
    return sum(unit.numbers)


def refuse(unit: Numbers) -> int:
    raise InputError(f"the number {unit.numbers[0]} is not liked; choose another")


def allocate_too_much(unit: Numbers) -> int:
    """Ask for more memory than there is address space for numbers from 90 on, each in another way."""
    import numpy as np
    import torch

    asked: dict[int, Callable[[], object]] = {
        90: lambda: bytearray(2**62),
        91: lambda: np.empty(2**59),
        92: lambda: torch.empty(2**55),
    }
    for number in unit.numbers:
        if number in asked:
            asked[number]()
    return write_numbers(unit)


def send_ctrl_c_to_itself(unit: Numbers) -> int:
    if unit.numbers[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGINT)
    return sum(unit.numbers)


def write_once_the_worker_was_killed(unit: Numbers) -> int:
    """Write which process this is and wait to be killed; a second attempt goes through."""
    mark = Path(unit.folder) / f"attempt-{unit.numbers[0]}"
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        time.sleep(60)
    return write_numbers(unit)


def test_every_unit_is_done_once_by_workers_with_one_thread_each(tmp_path: Path) -> None:
    units = [Numbers(str(tmp_path), (i,)) for i in range(12)]
    with Cluster(None, 2, print) as cluster:
        results = dict(cluster.map(write_numbers, units))
    assert results == {unit: unit.numbers[0] for unit in units}
    workers = {path.read_text() for path in tmp_path.iterdir()}
    assert len(workers) <= 2
    assert str(os.getpid()) not in workers


def test_a_number_that_kills_its_worker_is_cornered_and_the_rest_is_done(tmp_path: Path) -> None:
    units = [Numbers(str(tmp_path), (1, 2, 3, 4)), Numbers(str(tmp_path), (5, -6, 7, 8))]
    with Cluster(None, 1, print) as cluster:
        results = list(cluster.map(write_numbers, units))
    failed = [unit.numbers for unit, result in results if isinstance(result, UnitFailure)]
    assert failed == [(-6,)]
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [1, 2, 3, 4, 5, 7, 8]
    assert sorted(n for unit, _ in results for n in unit.numbers) == [-6, 1, 2, 3, 4, 5, 7, 8]


def test_what_waits_beside_a_number_that_kills_is_not_blamed(tmp_path: Path) -> None:
    """Dask counts a worker's death against every task that the worker had been given."""
    units = [Numbers(str(tmp_path), numbers) for numbers in ((-1,), (2, 3), (-4,), (5, 6))]
    with Cluster(None, 1, print) as cluster:
        results = dict(cluster.map(write_numbers, units))
    assert [results[unit] for unit in units[1::2]] == [5, 11]
    assert all("its worker process died 2 times over it" in results[unit].reason for unit in units[::2])


def test_numbers_that_need_more_memory_than_there_is_are_cornered_and_say_so(tmp_path: Path) -> None:
    units = [
        Numbers(str(tmp_path), (1, 90, 2)),
        Numbers(str(tmp_path), (91, 3)),
        Numbers(str(tmp_path), (4, 92)),
        Numbers(str(tmp_path), (5,)),
    ]
    with Cluster(None, 1, print) as cluster:
        results = list(cluster.map(allocate_too_much, units))
    failed = {unit.numbers: result.reason for unit, result in results if isinstance(result, UnitFailure)}
    assert failed == dict.fromkeys([(90,), (91,), (92,)], "it needs more memory than its worker may use")
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [1, 2, 3, 4, 5]


def test_a_worker_that_is_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    import threading

    def kill_when_it_works() -> None:
        mark = tmp_path / "attempt-1"
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.05)
        os.kill(int(mark.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill_when_it_works)
    killer.start()
    with Cluster(None, 1, print) as cluster:
        results = list(cluster.map(write_once_the_worker_was_killed, [Numbers(str(tmp_path), (1,))]))
    killer.join()
    assert [result for _, result in results] == [1]


def test_an_error_of_a_unit_is_the_users_error(tmp_path: Path) -> None:
    with Cluster(None, 1, print) as cluster, pytest.raises(InputError, match="the number 7 is not liked"):
        list(cluster.map(refuse, [Numbers(str(tmp_path), (7,))]))


def test_no_units_start_no_cluster(tmp_path: Path) -> None:
    said: list[str] = []
    with Cluster("tcp://127.0.0.1:1", None, said.append) as cluster:
        assert list(cluster.map(write_numbers, [])) == []
    assert said == []


def test_a_scheduler_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    cluster = Cluster("tcp://127.0.0.1:1", None, print)
    with cluster, pytest.raises(StageError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        list(cluster.map(write_numbers, [Numbers(str(tmp_path), (1,))]))


class _SlowToSend:
    """A result that its worker dies over while it is being fetched."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        os.kill(os.getpid(), signal.SIGKILL)
        return (_SlowToSend, ())


def lose_the_first_record(unit: Numbers) -> object:
    mark = Path(unit.folder) / "first"
    if not mark.exists():
        mark.touch()
        return _SlowToSend()
    return write_numbers(unit)


def test_a_record_that_is_lost_with_the_last_worker_is_made_again_by_a_new_one(tmp_path: Path) -> None:
    """A worker that dies between its unit and the fetch of its record is reported; nothing waits for ever."""
    with running.dask_scheduler(tmp_path / "scheduler") as (_, file, address), ExitStack() as workers:

        def start_worker() -> None:
            workers.enter_context(
                running.dask("worker", "--scheduler-file", file, "--nthreads", 1, "--no-nanny")
            )

        def say(line: str) -> None:
            said.append(line)
            if "no worker is left" in line:
                start_worker()

        said: list[str] = []
        start_worker()
        with Cluster(address, None, say) as cluster:
            results = [
                result for _, result in cluster.map(lose_the_first_record, [Numbers(str(tmp_path), (7,))])
            ]
    assert results == [7]
    assert any("no worker is left" in line for line in said)


def test_ctrl_c_reaches_no_worker_not_even_one_that_was_started_again(tmp_path: Path) -> None:
    """A terminal sends it to all processes, and this one alone has something to say of it."""
    units = [Numbers(str(tmp_path), (number,)) for number in (1, -1, 2)]
    with Cluster(None, 1, lambda line: None) as cluster:
        results = {unit.numbers[0]: result for unit, result in cluster.map(send_ctrl_c_to_itself, units)}
    assert isinstance(results.pop(-1), UnitFailure)
    assert results == {1: 1, 2: 2}
