"""What the pipeline lends to a stage, and what a stage returns when it ends."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

__all__ = ["SILENT", "Counts", "ProgressBar", "Tools", "UnitFailure", "counted"]

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class ProgressBar(Protocol):
    """Wraps an iterable or counts by hand through `update`: the part of tqdm's interface that stages use."""

    def update(self, n: int = 1) -> Any: ...
    def set_postfix_str(self, s: str = "", refresh: bool = True) -> Any: ...
    def close(self) -> Any: ...


class _Silent:
    def update(self, n: int = 1) -> None: ...
    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class UnitFailure:
    """A unit of work that crashed its worker every time, down to the smallest part.

    reason: for the failure table.
    """

    reason: str


def _map_here(
    function: Callable[[Unit], Result], units: Sequence[Unit]
) -> Iterator[tuple[Unit, Result | UnitFailure]]:
    for unit in units:
        yield unit, function(unit)


@dataclass(frozen=True)
class Tools:
    """What the pipeline lends to a stage. The defaults run in this process and print nothing.

    map: applies a function to units of work, in any order, on the available cluster; yields (unit, result).
    bar: `bar(total, description, unit)` opens a progress bar.
    say: prints one line to the user.
    checkpoint_seconds: the least time between two checkpoints of a training.
    all_may_fail: whether a stage may end without one result, as where one post's image is all it has.
    """

    map: Callable[..., Iterator[tuple[Any, Any]]] = _map_here
    bar: Callable[[int, str, str], ProgressBar] = lambda total, description, unit: _Silent()
    say: Callable[[str], None] = lambda line: None
    checkpoint_seconds: float = 60.0
    all_may_fail: bool = False


SILENT = Tools()


def counted(number: int, things: str) -> str:
    """Return a number of things in words, "1 sample" or "2 samples"; `things` is their plural."""
    one = things.removesuffix("es") if things.endswith("sses") else things.removesuffix("s")
    return f"{number} {one if number == 1 else things}"


@dataclass(frozen=True)
class Counts:
    """How a stage ended.

    unit: what was counted. details: further numbers and lines for the summary.
    """

    unit: str
    done: int
    skipped: int = 0
    failed: int = 0
    details: dict[str, Any] = field(default_factory=dict)
