"""What state a run is in, derived from what lies on disk."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ...manifests.advice import typed
from ...manifests.errors import HmnetPipeError, StageError
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS
from ...manifests.tables import read_table
from ...stages.base.stage import Progress, Stage
from ...stages.base.tools import counted
from ..run.config import RunConfig
from ..run.freshness import why_changed
from ..run.graph import stages_of
from ..run.runner import State, stage_state

__all__ = ["RunStatus", "StageStatus", "run_status"]

# Crops may be millions of small files: in larger folders, the sizes of this many files stand for all.
_SIZED_FILES = 20_000


@dataclass(frozen=True)
class StageStatus:
    """The state of a stage: a State or "blocked". An interrupted stage with something kept is "partial" too.

    A stage is blocked if a stage before it has not run or its weights are missing.

    reasons: why it is not fresh.
    failures: how many images (or, for prepare, samples and tags) had each problem; failures_are: their name.
    done, failed, seconds: of its last finished run.
    """

    stage: str
    state: State | Literal["blocked"]
    reasons: list[str]
    progress: Progress | None
    failures: dict[str, int]
    done: int | None
    failed: int | None
    seconds: float | None
    finished: str | None
    failures_are: str = "failed"

    def lines(self) -> Iterator[str]:
        counts = (
            f" ({self.done} done, {self.failed} failed, {self.seconds:.1f} s)"
            if self.done is not None
            else ""
        )
        yield f"  {self.stage:<28} {self.state}{counts}"
        if self.progress is not None:
            more = "".join(f", {name} {value}" for name, value in self.progress.details.items())
            total = counted(self.progress.total, self.progress.unit)
            are = "is" if self.progress.done == 1 else "are"
            yield f"    {self.progress.done} of {total} {are} kept{more}"
        yield from (
            f"    because of {reason}" if self.state in ("stale", "partial") else f"    {reason}"
            for reason in self.reasons
        )
        yield from (f"    {number} {self.failures_are}: {reason}" for reason, number in self.failures.items())


@dataclass(frozen=True)
class RunStatus:
    """The stages of a run in their order, the bytes on disk of each part, and the next command to type.

    next_command: None if everything is done.
    estimated: the parts whose size was estimated from a sample of their files.
    """

    run: str
    task: str
    stages: list[StageStatus]
    bytes: int
    parts: dict[str, int]
    estimated: list[str]
    next_command: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        sizes = [
            f"{name} {'about ' * (name in self.estimated)}{_megabytes(size)}"
            for name, size in self.parts.items()
            if size
        ]
        result = [f"{self.run}: task {self.task}, {_megabytes(self.bytes)} on disk ({', '.join(sizes)})"]
        for row in self.stages:
            result += row.lines()
        if self.next_command is None:
            return [*result, "everything is up to date"]
        first = next((row for row in self.stages if row.state != "fresh"), None)
        # The command alone would be refused again.
        mend = f"see to what blocks {first.stage}, then " if first and first.state == "blocked" else ""
        return [*result, f"next: {mend}{self.next_command}"]


def run_status(run: RunFolder, *, sized_files: int = _SIZED_FILES) -> RunStatus:
    """Return the state of a run. Raises StageError where `run` is not a run."""
    config = RunConfig.read(run.config)
    stages = stages_of(config, run)
    rows = [_stage_status(stage) for stage in stages]
    commands = [stage.command() for stage, row in zip(stages, rows, strict=True) if row.state != "fresh"]
    if not any(stage.repeats_whole for stage in stages):
        commands.append(typed("train", run.path))
    parts, estimated = _sizes(run, sized_files)
    return RunStatus(
        str(run.path), config.task, rows, sum(parts.values()), parts, estimated, next(iter(commands), None)
    )


def _stage_status(stage: Stage) -> StageStatus:
    progress: Progress | None = None
    record: StageRecord | None = None
    state: State | Literal["blocked"]
    try:
        record = StageRecord.read(stage.run.record(stage.name))
        causes = _causes(stage, record)
        state, reasons = stage_state(stage, causes)
        if state != "fresh" and (progress := stage.progress(causes)) is not None:
            state = "partial"
    except HmnetPipeError as error:  # a stage before it has not run, or its weights are not available here
        state, reasons = "blocked", [str(error)]
    finally:
        # Otherwise what one stage's tables took is not there for the next one's.
        pa.default_memory_pool().release_unused()
    facts = record.facts if record is not None else {}
    counts = facts.get("counts", {})
    return StageStatus(
        stage.name,
        state,
        reasons,
        progress,
        stage.failures(),
        done=counts.get("done"),
        failed=counts.get("failed"),
        seconds=facts.get("seconds"),
        finished=facts.get("finished"),
        failures_are=stage.failures_are,
    )


def _causes(stage: Stage, record: StageRecord | None) -> StageRecord:
    """Return the stage's causes.

    Avoids reading a million texts and images where none is newer than the record, or there is no record to
    compare them with.
    """
    if not stage.inputs_outside:
        return stage.causes()
    parameters = stage.parameters()  # raises where there are no texts
    if record is None:
        return StageRecord(stage.name, stage.schema_version, parameters, {}, {}, {})
    if why_changed(stage) is None:
        return replace(record, parameters=parameters, outputs={}, facts={})
    return stage.causes()


def _sizes(run: RunFolder, sized: int) -> tuple[dict[str, int], list[str]]:
    """Return the bytes of each part of a run, and which of them are estimates."""
    folders = {"crops": run.crops, "features": run.path / "features", "models": run.models}
    parts = {"tables": 0, **dict.fromkeys(folders, 0), "other": 0}
    estimated = []
    for name, folder in folders.items():
        parts[name], exact = _size(folder, sized, _crops(run) if name == "crops" else None)
        if not exact:
            estimated.append(name)
    with os.scandir(run.path) as entries:
        for entry in entries:
            if entry.name in folders:
                continue
            with suppress(OSError):  # a link to nothing or to itself
                if entry.is_file():
                    parts["tables" if entry.name.endswith(".parquet") else "other"] += entry.stat().st_size
                elif entry.is_dir():
                    parts["other"] += _size(Path(entry), sized)[0]
    return parts, estimated


def _crops(run: RunFolder) -> int | None:
    """Return how many crops the last finished detect left, or None where it never finished."""
    try:
        return int(read_table(run.detections, DETECTIONS, columns=[]).num_rows)
    except StageError:
        return None


def _size(folder: Path, sized: int, known: int | None = None) -> tuple[int, bool]:
    """Return the bytes below `folder`, and whether they were counted.

    If not, they are the mean of its first `sized` files times the number of all files, which is `known` or
    counted.
    """
    files = size = 0
    waiting = [folder] if folder.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry))
                    continue
                files += 1
                if files <= sized:
                    size += entry.stat(follow_symlinks=False).st_size
                elif known is not None:
                    return size * known // sized, False
    return (size, True) if files <= sized else (size * files // sized, False)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MB"
