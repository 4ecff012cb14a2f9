"""What every stage is: it states its causes, makes its outputs, and answers questions about both."""

import json
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.advice import typed
from ...manifests.errors import StageError
from ...manifests.files import check_file, check_folder
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import DONE, MISSED, OUTCOMES, PROBLEMS
from ...manifests.tables import read_table
from .tools import SILENT, Counts, Tools

__all__ = [
    "Progress",
    "Rerun",
    "Stage",
    "Verdict",
    "changed_outputs",
    "count_reasons",
    "given_settings",
    "problem_reasons",
    "sample_of",
]

Unit = TypeVar("Unit")

Verdict = Literal["equal", "close", "different", "not run"]


@dataclass(frozen=True)
class Progress:
    """How far an interrupted stage had come: `done` of `total` units are kept and will be reused."""

    done: int
    total: int
    unit: str
    details: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Rerun:
    """The result of computing a part of a stage again.

    verdict: "equal" to the last bit; "close", apart by no more than rounding explains; "different"; or "not
    run", with the reason as the only remark.
    checked: how much was computed again.
    distances: the largest ones, by name.
    remarks: anything further, such as which versions differ from the recorded ones.
    """

    stage: str
    verdict: Verdict
    checked: str = ""
    distances: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        distances = "".join(f", {name} {value:.6g}" for name, value in self.distances.items())
        checked = f" ({self.checked} computed again{distances})" if self.checked else ""
        return [f"{self.stage}: {self.verdict}{checked}", *(f"  {remark}" for remark in self.remarks)]


class Stage(ABC):
    """One job on one run. Subclasses are built from a RunFolder and their settings, and are cheap to build.

    The contract: equal `schema_version`, `parameters`, `inputs` and `weights` give equal `outputs`, whatever
    the number of workers, the order of work or how often the job was killed. `compute` may be called again
    after any interruption. The pipeline asks a stage whatever it needs to know about it; only
    pipeline.run.graph knows which stages there are.

    kind: the command.
    optional: whether a run can do without it.
    repeats_whole: whether computing it again for comparison takes as long as the stage itself.
    inputs_outside: whether its inputs lie outside the run.
    failures_are: how `status` calls what `failures` counts.
    files: the names, for `output_path`, of the files that it writes at its end.
    """

    kind: ClassVar[str]
    optional: ClassVar[bool] = False
    repeats_whole: ClassVar[bool] = False
    inputs_outside: ClassVar[bool] = False
    failures_are: ClassVar[str] = "failed"
    files: ClassVar[tuple[str, ...]]
    run: RunFolder

    @property
    @abstractmethod
    def schema_version(self) -> int:
        """Return a number that is raised where the stage would make other outputs from the same causes."""

    @property
    def name(self) -> str:
        """Return the name of the record: the kind, and whatever distinguishes stages of one kind."""
        return self.kind

    # What its result follows from, and the result.

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return the settings that can change the result, as JSON values."""

    @abstractmethod
    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        """Return a digest of each input's content.

        Raises StageError where an input is missing; its message names the command to run first.
        """

    def weights(self) -> dict[str, str]:
        """Return the digest of each weights file used. Raises WeightsError where one is not available."""
        return {}

    def causes(self, tools: Tools = SILENT) -> StageRecord:
        """Return the record that the stage would have if it ran now, with empty outputs."""
        return StageRecord(
            self.name, self.schema_version, self.parameters(), self.inputs(tools), self.weights(), {}
        )

    @abstractmethod
    def outputs(self) -> dict[str, str]:
        """Return a digest of each output as it is on disk now, leaving out missing ones."""

    @abstractmethod
    def output_path(self, output: str) -> Path:
        """Return the file whose existence shows that an output named in a record is there."""

    def check_places(self) -> None:
        """Raise StageError where something stands in the way of a file that it will write at its end."""
        for name in self.files:
            path = self.output_path(name)
            check_folder(path.parent)
            check_file(path)

    @property
    @abstractmethod
    def place(self) -> Path:
        """Return the file or folder to show as the stage's result."""

    @abstractmethod
    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        """Make the outputs from `causes`, the result of `causes()`, reusing whatever is still valid."""

    @classmethod
    def compute_together(cls, works: Sequence[tuple[Self, StageRecord]], tools: Tools) -> list[Counts]:
        """Compute several stages of this kind in one run, each with its causes."""
        return [stage.compute(causes, tools) for stage, causes in works]

    def finish(self) -> None:
        """Remove what only a resumed `compute` would need. Called once the stage's record is on disk."""
        shutil.rmtree(self.run.work(self.name), ignore_errors=True)

    # What it depends on, as far as that can be said without reading it.

    def before(self) -> tuple[str, ...]:
        """Return the names of the stages whose tables it reads."""
        return ()

    @abstractmethod
    def given(self) -> dict[str, Any]:
        """Return the settings as they were given ("auto" is "auto"), as JSON values."""

    def sources(self) -> Iterator[Path]:
        """Yield the files and folders outside the run that it reads."""
        yield from ()

    def other_sources(self, record: StageRecord) -> str | None:
        """Return why its sources differ, by name alone, from those of `record`, or None where they do not."""
        return None

    def command(self) -> str:
        """Return the command that brings the stage up to date."""
        return typed(self.kind, self.run.path)

    # What can be said about its state.

    def progress(self, causes: StageRecord) -> Progress | None:
        """Return what an interrupted run left that the next one, with these causes, will use, if anything."""
        return None

    def failures(self) -> dict[str, int]:
        """Return how often the last finished run met each reason for a failure, most frequent first."""
        return self._reasons(lambda status: pc.not_equal(status, DONE))

    def missed(self) -> dict[str, int]:
        """Return how often it met each reason that depended on the moment, most frequent first.

        Such an image has no result: a stage that has missed some is not finished.
        """
        return self._reasons(lambda status: pc.equal(status, MISSED))

    def _reasons(self, wanted: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> dict[str, int]:
        try:
            table = read_table(self.run.outcomes(self.name), OUTCOMES, columns=["status", "reason"])
        except StageError:  # it never finished, or it has no such table
            return {}
        return count_reasons(table.filter(wanted(table.column("status"))).column("reason"))

    def carried(self) -> dict[str, Any]:
        """Return what it learned from the run's data and a model on other data needs, as JSON values."""
        return {}

    def with_carried(self, carried: Mapping[str, Any]) -> Self:
        """Return the stage as it works with what `carried` returned in another run."""
        return self

    def damage(self) -> list[tuple[Path, str]]:
        """Return each output file that fails its own checksums, with the reason."""
        return []

    def scores(self) -> dict[str, Any] | None:
        """Return what a finished stage scored, for a lock, or None where it scores nothing."""
        return None

    # How its result is compared with another one.

    @abstractmethod
    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        """Compute a share of it again, at least one unit, in the empty folder `scratch`, and compare.

        elsewhere: whether the machine or the versions differ from those of `record`.
        Raises StageError where it cannot be computed.
        """

    def probes(self) -> dict[str, list[dict[str, Any]]]:
        """Return some numbers of each output, for a lock, that distinguish rounding from a fault."""
        return {}

    def distance(self, output: str, probes: Sequence[Mapping[str, Any]]) -> tuple[bool, str] | None:
        """Return whether an output is as close to another's probes as rounding explains, and how close.

        Returns None where this output has no distance.
        """
        return None


def given_settings(settings: Any, **more: Any) -> dict[str, Any]:
    """Return a settings dataclass as JSON values, with `more` beside its fields."""
    values: dict[str, Any] = json.loads(json.dumps({**asdict(settings), **more}, default=str))
    return values


def problem_reasons(path: Path) -> dict[str, int]:
    """Return how often a table of PROBLEMS has each reason, most frequent first; nothing without a table."""
    try:
        return count_reasons(read_table(path, PROBLEMS, columns=["reason"]).column("reason"))
    except StageError:  # the stage never finished
        return {}


def count_reasons(reasons: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each text occurs, most frequent first."""
    counts = [(str(item["values"]), int(item["counts"])) for item in pc.value_counts(reasons).to_pylist()]
    return dict(sorted(counts, key=lambda count: (-count[1], count[0])))


def changed_outputs(record: StageRecord, outputs: Mapping[str, str]) -> list[str]:
    """Return the names of the outputs that differ from `record`, in alphabetical order."""
    names = sorted({*record.outputs, *outputs})
    return [name for name in names if record.outputs.get(name) != outputs.get(name)]


def sample_of(units: Sequence[Unit], share: float) -> list[Unit]:
    """Return a share of the units, at least one, in their order; the same ones every time."""
    if not units:
        return []
    chosen = random.Random(0).sample(range(len(units)), min(len(units), max(1, round(share * len(units)))))
    return [units[i] for i in sorted(chosen)]
