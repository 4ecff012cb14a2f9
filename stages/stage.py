"""What every stage is: fields that make its fingerprint, and a computation that leaves digests behind."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar, overload

from ..manifests.run import RunFolder

__all__ = ["SILENT", "Counts", "Made", "ProgressBar", "Stage", "Tools", "UnitFailure", "setting"]

Unit = TypeVar("Unit")
Result = TypeVar("Result")
Item = TypeVar("Item")


def setting(default: Any, help: str, option: str | None = None) -> Any:
    """A field of a settings dataclass. `help` becomes the help of its command-line option and its comment in run.toml.

    option: the name of the command-line option where it is not the field's (`from` cannot be a field).
    """
    return field(default=default, metadata={"help": help, "option": option})


class Made(Sequence[Item]):
    """A sequence whose items are made each time they are asked for: as objects, a million images with their boxes take gigabytes."""

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


class ProgressBar(Protocol):
    """Wraps an iterable, or counts by hand through `update`; tqdm's interface, as far as stages use it."""

    def update(self, n: int = 1) -> Any: ...
    def set_postfix_str(self, s: str = "", refresh: bool = True) -> Any: ...
    def close(self) -> Any: ...


class _Silent:
    def update(self, n: int = 1) -> None: ...
    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class UnitFailure:
    """A unit of work that crashed its worker every time, down to the smallest part: `reason` is for the failure table."""

    reason: str


def _map_here(
    function: Callable[[Unit], Result], units: Sequence[Unit]
) -> Iterator[tuple[Unit, Result | UnitFailure]]:
    for unit in units:
        yield unit, function(unit)


@dataclass(frozen=True)
class Tools:
    """What the pipeline lends to a stage; the defaults run in this process and print nothing, for tests and notebooks.

    map: applies a function to units of work, in any order, on whatever cluster there is, and yields (unit, result).
    bar: `bar(total, description, unit)` opens a progress bar.
    say: prints one line to the user.
    """

    map: Callable[..., Iterator[tuple[Any, Any]]] = _map_here
    bar: Callable[[int, str, str], ProgressBar] = lambda total, description, unit: _Silent()
    say: Callable[[str], None] = lambda line: None


SILENT = Tools()


@dataclass(frozen=True)
class Counts:
    """How a stage ended. `unit` names what was counted; `details` are further numbers and lines for the summary."""

    unit: str
    done: int
    skipped: int = 0
    failed: int = 0
    details: dict[str, Any] = field(default_factory=dict)


class Stage(ABC):
    """One job on one run. Subclasses are built from a RunFolder and their settings, and are cheap to build.

    The contract: equal `schema_version`, `parameters`, `inputs` and `weights` give equal `outputs`, whatever the number of workers,
    the order of work or how often the job was killed. `compute` may be called again after any interruption.
    """

    name: ClassVar[str]
    schema_version: ClassVar[int]
    run: RunFolder

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The settings that can change the result, as JSON values."""

    @abstractmethod
    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        """A digest of each input's content. Raises StageError that names the command to run first where one is missing."""

    def weights(self) -> dict[str, str]:
        """The digest of each weights file used. Raises WeightsError where one cannot be had."""
        return {}

    @abstractmethod
    def outputs(self) -> dict[str, str]:
        """A digest of each output's content as it lies on disk now; an output that is missing is left out."""

    @abstractmethod
    def compute(self, tools: Tools) -> Counts:
        """Make the outputs, reusing whatever is still valid."""

    def finish(self) -> None:  # noqa: B027  (most stages leave nothing behind)
        """Remove what only a resumed `compute` would need; called once the stage's record is on disk."""
