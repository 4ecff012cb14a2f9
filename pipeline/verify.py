"""`hmnet-pipe verify`: what lies on disk against what the stages recorded, and against the checksums of the cache."""

from dataclasses import asdict, dataclass
from typing import Any

from ..cache.integrity import find_damage
from ..manifests.errors import StageError
from ..manifests.run import RunFolder, StageRecord
from ..stages.stage import Tools
from .config import RunConfig
from .runner import Report, run_stage
from .status import run_stages

__all__ = ["Problem", "mend_run", "verify_run"]


@dataclass(frozen=True)
class Problem:
    """One thing that is not as recorded: the stage that made it, the file or table, and what is wrong."""

    stage: str
    what: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify_run(run: RunFolder) -> list[Problem]:
    """Every output of every finished stage that is not what its record says. Reads everything and changes nothing.

    Raises StageError where `run` is not a run.
    """
    problems: list[Problem] = []
    for stage in run_stages(RunConfig.read(run.config), run):
        try:
            record = StageRecord.read(run.record(stage.name))
        except StageError as error:
            problems.append(Problem(stage.name, str(run.record(stage.name)), str(error)))
            continue
        if record is None:
            continue
        damage = find_damage(run.features) if stage.name == "extract" else []
        problems += [Problem(stage.name, str(item.path), item.reason) for item in damage]
        try:
            outputs = stage.outputs()
        except StageError as error:
            problems.append(Problem(stage.name, stage.name, str(error)))
            continue
        for name in sorted({*record.outputs, *outputs}):
            if record.outputs.get(name) != outputs.get(name) and not (damage and name == "features"):
                problems.append(Problem(stage.name, name, "not as recorded" if name in outputs else "missing or damaged"))
    return problems


def mend_run(run: RunFolder, problems: list[Problem], tools: Tools) -> list[Report]:
    """Recompute what `verify_run` found wrong, and only that: damaged shards go, and each stage makes again what is missing."""
    for problem in problems:
        if problem.what.endswith(".h5"):
            (run.features / problem.what).unlink(missing_ok=True)
    wrong = {problem.stage for problem in problems}
    for problem in problems:
        if problem.what == str(run.record(problem.stage)):
            run.record(problem.stage).unlink()
    return [run_stage(stage, tools) for stage in run_stages(RunConfig.read(run.config), run) if stage.name in wrong]
