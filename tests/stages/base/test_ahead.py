"""Work ahead of its consumer: in order, by several threads, a bounded number of items."""

import threading
from collections.abc import Iterator

import pytest
from hmnet_pipe.stages.base.ahead import decoders, in_threads


def test_items_come_in_order_from_several_threads_at_once() -> None:
    meeting = threading.Barrier(3, timeout=10)  # which one thread alone could not pass
    assert list(in_threads(lambda number: (meeting.wait(), number)[1], range(30), 3)) == list(range(30))


def test_no_more_items_are_asked_for_than_the_threads_need() -> None:
    asked: list[int] = []

    def source() -> Iterator[int]:
        for number in range(1000):
            asked.append(number)
            yield number

    made = in_threads(abs, source(), 2)
    for seen in range(1, 20):
        assert next(made) == seen - 1
        assert len(asked) == seen + 4


def test_an_error_arrives_in_its_place_and_ends_the_work() -> None:
    done: list[int] = []

    def fail(number: int) -> int:
        if number == 5:
            raise ValueError
        done.append(number)
        return number

    made = in_threads(fail, range(1000), 2)
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError):
        next(made)
    assert len(done) < 20


def test_a_processor_decodes_by_one_thread_a_worker() -> None:
    assert decoders("cpu") == 1
    assert decoders("cuda:1") >= decoders("cpu")
