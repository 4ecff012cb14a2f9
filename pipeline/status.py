"""What state a run is in, derived from what lies on disk."""

from dataclasses import asdict, dataclass
from typing import Any

from ..manifests.errors import HmnetPipeError
from ..manifests.run import RunFolder, StageRecord
from ..stages.stage import Stage
from ..stages.train.stage import Train
from .config import RunConfig
from .runner import expected_record, stage_state

__all__ = ["RunStatus", "StageStatus", "command_of", "run_stages", "run_status"]


@dataclass(frozen=True)
class StageStatus:
    """state: "fresh", "stale", "never run" or "blocked" (a stage before it has not run, or its weights are missing).

    reasons: why it is not fresh. done, failed, seconds: of its last finished run.
    """

    stage: str
    state: str
    reasons: list[str]
    done: int | None
    failed: int | None
    seconds: float | None


@dataclass(frozen=True)
class RunStatus:
    """The stages of a run in their order, its size on disk in bytes, and the next command to type (None: all is done)."""

    run: str
    task: str
    stages: list[StageStatus]
    bytes: int
    next_command: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        result = [f"{self.run}: task {self.task}, {self.bytes / 2**20:.1f} MB on disk"]
        for row in self.stages:
            counts = f" ({row.done} done, {row.failed} failed, {row.seconds:.1f} s)" if row.done is not None else ""
            result.append(f"  {row.stage:<28} {row.state}{counts}")
            result += [f"    {reason}" for reason in row.reasons]
        return [*result, f"next: {self.next_command}" if self.next_command else "everything is up to date"]


def run_status(run: RunFolder) -> RunStatus:
    """Raises StageError where `run` is not a run."""
    config = RunConfig.read(run.config)
    stages = run_stages(config, run)
    rows = []
    next_command = None
    for stage in stages:
        try:
            state, reasons = stage_state(stage, expected_record(stage))
        except HmnetPipeError as error:  # a stage before it has not run, or its weights cannot be had here
            state, reasons = "blocked", [str(error)]
        record = StageRecord.read(run.record(stage.name))
        facts = record.facts if record is not None else {}
        counts = facts.get("counts", {})
        rows.append(StageStatus(stage.name, state, reasons, counts.get("done"), counts.get("failed"), facts.get("seconds")))
        if state != "fresh" and next_command is None:
            next_command = command_of(stage)
    if next_command is None and len(stages) == 3:
        next_command = f"hmnet-pipe train {run.path}"
    size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    return RunStatus(str(run.path), config.task, rows, size, next_command)


def run_stages(config: RunConfig, run: RunFolder) -> list[Stage]:
    """The stages of a run in their order; of training, each system and seed that has a folder."""
    stages: list[Stage] = [config.stage(name, run) for name in ("prepare", "detect", "extract")]
    for folder in sorted((run.path / "models").glob("*/seed-*")):
        stages.append(config.stage("train", run, system=folder.parent.name, seed=int(folder.name.removeprefix("seed-"))))
    return stages


def command_of(stage: Stage) -> str:
    """The command that brings `stage` up to date."""
    if isinstance(stage, Train):
        return f"hmnet-pipe train {stage.run.path} --system {stage.system} --seed {stage.seed}"
    return f"hmnet-pipe {stage.name} {stage.run.path}"
