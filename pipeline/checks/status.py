"""What state a run is in, derived from what lies on disk."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.errors import HmnetPipeError, StageError
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS, OUTCOMES, PROBLEMS
from ...manifests.tables import read_table
from ...stages.base.stage import Stage
from ...stages.detect.stage import Detect
from ...stages.extract.stage import Extract
from ...stages.finetune.stage import Finetune
from ...stages.prepare.stage import Prepare
from ...stages.train.stage import Train
from ..run.config import RunConfig
from ..run.freshness import why_changed
from ..run.runner import expected_record, stage_state

__all__ = ["Progress", "RunStatus", "StageStatus", "command_of", "run_stages", "run_status"]

# Crops may be millions of small files: of larger folders the sizes of so many files stand for all.
_SIZED_FILES = 20_000


@dataclass(frozen=True)
class Progress:
    """How far an interrupted stage had come: `done` of `total` units are kept and will not be computed again."""

    done: int
    total: int
    unit: str
    details: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StageStatus:
    """state: "fresh", "stale", "partial" (interrupted, with something kept), "never run" or "blocked" (a stage before it has not run, or
    its weights are missing).

    reasons: why it is not fresh. failures: how many images (or, for prepare, samples and tags) had each problem. done, failed, seconds:
    of its last finished run.
    """

    stage: str
    state: str
    reasons: list[str]
    progress: Progress | None
    failures: dict[str, int]
    done: int | None
    failed: int | None
    seconds: float | None
    finished: str | None

    def lines(self) -> Iterator[str]:
        counts = (
            f" ({self.done} done, {self.failed} failed, {self.seconds:.1f} s)"
            if self.done is not None
            else ""
        )
        yield f"  {self.stage:<28} {self.state}{counts}"
        if self.progress is not None:
            more = "".join(f", {name} {value}" for name, value in self.progress.details.items())
            yield f"    {self.progress.done} of {self.progress.total} {self.progress.unit} are kept{more}"
        yield from (
            f"    because of {reason}" if self.state == "stale" else f"    {reason}"
            for reason in self.reasons
        )
        yield from (f"    {number} failed: {reason}" for reason, number in self.failures.items())


@dataclass(frozen=True)
class RunStatus:
    """The stages of a run in their order, the bytes on disk of each part, and the next command to type (None: all is done).

    estimated: the parts of which the size was reckoned from a sample of their files.
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
        return [*result, f"next: {self.next_command}" if self.next_command else "everything is up to date"]


def run_status(run: RunFolder) -> RunStatus:
    """Raises StageError where `run` is not a run."""
    config = RunConfig.read(run.config)
    stages = run_stages(config, run)
    rows = []
    next_command = None
    for stage in stages:
        row = _stage_status(stage)
        rows.append(row)
        if row.state != "fresh" and next_command is None:
            next_command = command_of(stage)
    if next_command is None and len(stages) == 3:
        next_command = f"hmnet-pipe train {run.path}"
    parts, estimated = _sizes(run)
    return RunStatus(str(run.path), config.task, rows, sum(parts.values()), parts, estimated, next_command)


def run_stages(config: RunConfig, run: RunFolder) -> list[Stage]:
    """The stages of a run in their order; of training, each system and seed that has a model or was interrupted."""
    stages: list[Stage] = [config.stage(name, run) for name in ("prepare", "detect", "extract")]
    trained = {(path.parent.name, path.name) for path in (run.path / "models").glob("*/seed-*")}
    for path in (run.path / "stages").glob("train-*.parts"):
        system, _, seed = path.stem.removeprefix("train-").rpartition("-seed-")
        trained.add((system, f"seed-{seed}"))
    for system, seed in sorted(trained):
        stages.append(config.stage("train", run, system=system, seed=int(seed.removeprefix("seed-"))))
    finetuned = {
        (path.parent.name, path.name.removeprefix("finetuned-seed-"))
        for path in (run.path / "models").glob("*/finetuned-seed-*")
    }
    for path in (run.path / "stages").glob("finetune-*.parts"):
        system, _, seed = path.stem.removeprefix("finetune-").rpartition("-seed-")
        finetuned.add((system, seed))
    stages += [
        config.stage("finetune", run, system=system, seed=int(seed)) for system, seed in sorted(finetuned)
    ]
    return stages


def command_of(stage: Stage) -> str:
    if isinstance(stage, (Train, Finetune)):
        command = "finetune" if isinstance(stage, Finetune) else "train"
        return f"hmnet-pipe {command} {stage.run.path} --system {stage.system} --seed {stage.seed}"
    return f"hmnet-pipe {stage.name} {stage.run.path}"


def _stage_status(stage: Stage) -> StageStatus:
    progress = None
    record = None
    try:
        record = StageRecord.read(stage.run.record(stage.name))
        expected = _expected(stage, record)
        state, reasons = stage_state(stage, expected)
        if state != "fresh" and (progress := _progress(stage, expected)) is not None:
            state = "partial"
    except HmnetPipeError as error:  # a stage before it has not run, or its weights cannot be had here
        state, reasons = "blocked", [str(error)]
    finally:
        pa.default_memory_pool().release_unused()  # else what one stage's tables took is not there for the next one's
    facts = record.facts if record is not None else {}
    counts = facts.get("counts", {})
    last = {
        "done": counts.get("done"),
        "failed": counts.get("failed"),
        "seconds": facts.get("seconds"),
        "finished": facts.get("finished"),
    }
    return StageStatus(stage.name, state, reasons, progress, _failures(stage), **last)


def _expected(stage: Stage, record: StageRecord | None) -> StageRecord:
    """What `expected_record` gives, without reading a million texts and images where nothing of them is newer than the record."""
    if isinstance(stage, Prepare) and record is not None and why_changed(stage) is None:
        return StageRecord(stage.name, stage.schema_version, stage.parameters(), record.inputs, {}, {})
    return expected_record(stage)


def _progress(stage: Stage, expected: StageRecord) -> Progress | None:
    """What an interrupted run of `stage` has left that the next one will use; None where there is nothing."""
    if isinstance(stage, Detect):
        done, total = stage.kept()
        return Progress(done, total, "images") if done else None
    if isinstance(stage, Extract):
        done, total, shards = stage.kept()
        return Progress(done, total, "images", {"new shards": shards}) if done else None
    if isinstance(stage, (Train, Finetune)):
        path = stage.checkpoints(expected.parameters, expected.inputs, expected.weights) / "progress.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return Progress(
                values["step"],
                values["steps"],
                "updates",
                {"epoch": values["epoch"], "of epochs": values["epochs"]},
            )
        except (OSError, ValueError, KeyError, TypeError):  # no checkpoint, or one that tells nothing
            return None
    return None


def _failures(stage: Stage) -> dict[str, int]:
    """How often each reason occurs among what the stage's last finished run could not use, by falling number."""
    try:
        if isinstance(stage, Prepare):
            reasons = read_table(stage.run.problems, PROBLEMS, columns=["reason"]).column("reason")
        else:
            table = read_table(stage.run.outcomes(stage.name), OUTCOMES, columns=["status", "reason"])
            reasons = table.filter(pc.equal(table.column("status"), "failed")).column("reason")
    except StageError:  # it never finished, or has no such table
        return {}
    counts = [(str(item["values"]), int(item["counts"])) for item in pc.value_counts(reasons).to_pylist()]
    return dict(sorted(counts, key=lambda count: (-count[1], count[0])))


def _sizes(run: RunFolder) -> tuple[dict[str, int], list[str]]:
    """The bytes of each part of a run, and which of them are estimates."""
    folders = {"crops": run.crops, "features": run.features, "models": run.path / "models"}
    parts = {"tables": 0, **dict.fromkeys(folders, 0), "other": 0}
    estimated = []
    for name, folder in folders.items():
        parts[name], exact = _size(folder, _crops(run) if name == "crops" else None)
        if not exact:
            estimated.append(name)
    with os.scandir(run.path) as entries:
        for entry in entries:
            if entry.name in folders:
                continue
            if entry.is_file():
                parts["tables" if entry.name.endswith(".parquet") else "other"] += entry.stat().st_size
            elif entry.is_dir():
                parts["other"] += _size(Path(entry))[0]
    return parts, estimated


def _crops(run: RunFolder) -> int | None:
    """How many crops the last finished detect has left, or None where there are none to be known of."""
    try:
        return int(read_table(run.detections, DETECTIONS, columns=[]).num_rows)
    except StageError:
        return None


def _size(folder: Path, known: int | None = None) -> tuple[int, bool]:
    """The bytes below `folder`, and whether they were counted; else they are the mean of its first files times the number of them all,
    which is `known` or counted."""
    files = size = 0
    waiting = [folder] if folder.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry))
                    continue
                files += 1
                if files <= _SIZED_FILES:
                    size += entry.stat(follow_symlinks=False).st_size
                elif known is not None:
                    return size * known // _SIZED_FILES, False
    return (size, True) if files <= _SIZED_FILES else (size * files // _SIZED_FILES, False)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MB"
