"""`hmnet-pipe verify`: compare a run with its records and with the checksums of its caches.

With --rerun, also compare it with what the stages now make of the same inputs.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...manifests.advice import typed
from ...manifests.errors import HmnetPipeError, StageError
from ...manifests.files import remove_file, scratch_folder
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...stages.base.stage import Rerun, Stage, changed_outputs
from ...stages.base.tools import Tools, counted
from ..cluster.machine import installed_version, machine_kind
from ..run.config import RunConfig
from ..run.graph import stages_of
from ..run.runner import Report, run_stage

__all__ = ["Problem", "Verification", "check_run", "mend_run", "rerun_run", "verify_run"]


@dataclass(frozen=True)
class Problem:
    """One thing that is not as recorded: the stage that made it, what it is, and what is wrong.

    spoilt: the file to remove before the stage makes it again, where the stage itself would keep it.
    """

    stage: str
    what: str
    reason: str
    spoilt: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return {"stage": self.stage, "what": self.what, "reason": self.reason}


@dataclass(frozen=True)
class Verification:
    """The result of a verification: the problems, those left after mending, and the comparisons."""

    run: RunFolder
    fixed: bool
    problems: list[Problem]
    left: list[Problem]
    reruns: list[Rerun]

    @property
    def sound(self) -> bool:
        return not self.left and all(rerun.verdict != "different" for rerun in self.reruns)

    def to_json(self) -> dict[str, Any]:
        return {
            "problems": [problem.to_json() for problem in self.problems],
            "left": [problem.to_json() for problem in self.left],
            "reruns": [rerun.to_json() for rerun in self.reruns],
        }

    def verdict(self) -> str:
        if not self.problems:
            return f"verify: everything in {self.run.path} is as recorded"
        them = "it" if len(self.problems) == 1 else "them"
        remedy = "" if self.fixed else f"; mend {them} with `{typed('verify', self.run.path, '--fix')}`"
        return f"verify: {counted(len(self.problems), 'problems')} found, {len(self.left)} left{remedy}"


def check_run(
    run: RunFolder,
    tools: Tools,
    report: Callable[[Sequence[str]], None],
    *,
    fix: bool = False,
    rerun: float | None = None,
    train: bool = False,
) -> Verification:
    """Verify a run, mend it if `fix`, and compute the share `rerun` of it again.

    report: called with lines as they come.

    Raises StageError where `run` is not a run.
    """
    left = problems = verify_run(run)
    for problem in problems:
        report([f"{problem.stage}: {problem.what}: {problem.reason}"])
    if problems and fix:
        for mended in mend_run(run, problems, tools):
            report(mended.lines())
        left = verify_run(run)
    reruns = []
    if rerun is not None:
        for result in rerun_run(run, rerun, train, tools):
            reruns.append(result)
            report(result.lines())
    return Verification(run, fix, problems, left, reruns)


def verify_run(run: RunFolder) -> list[Problem]:
    """Return every output of every finished stage that differs from its record, or has none.

    Reads everything, changes nothing.

    Raises StageError where `run` is not a run, or holds nothing yet.
    """
    stages = stages_of(RunConfig.read(run.config), run)
    problems = [problem for stage in stages for problem in _problems(stage)]
    if not problems and not any(run.record(stage.name).is_file() for stage in stages):
        raise StageError(f"no stage of {run.path} has been finished; run `{stages[0].command()}` first")
    return problems


def _problems(stage: Stage) -> Iterator[Problem]:
    path = stage.run.record(stage.name)
    try:
        record = StageRecord.read(path)
    except StageError as error:
        yield Problem(stage.name, str(path), str(error), spoilt=path)
        return
    if record is None:
        # What an interrupted stage leaves are parts; outputs are there only once it has come to its end.
        if found := sorted(stage.outputs()):
            yield Problem(
                stage.name, str(path), f"the record of how {', '.join(found)} came about is missing"
            )
        return
    damage = stage.damage()
    # An index that is damaged is made again as it is; a shard, and what is in no digest, would be kept.
    yield from (
        Problem(stage.name, str(path), reason, spoilt=None if path.name == "index.parquet" else path)
        for path, reason in damage
    )
    try:
        outputs = stage.outputs()
    except StageError as error:
        yield Problem(stage.name, stage.name, str(error))
        return
    spoilt = {path.parent for path, _ in damage}
    for name in changed_outputs(record, outputs):
        if stage.output_path(name).parent not in spoilt:
            yield Problem(stage.name, name, "not as recorded" if name in outputs else "missing or damaged")
    if missed := sum(stage.missed().values()):
        yield Problem(stage.name, "outcomes", f"{counted(missed, 'images')} could not be read when it ran")


def mend_run(run: RunFolder, problems: list[Problem], tools: Tools) -> list[Report]:
    """Recompute what `verify_run` found wrong, and only that.

    Spoilt files are removed, and each stage makes what is missing again.
    """
    for problem in problems:
        if problem.spoilt is not None:
            remove_file(problem.spoilt)
    wrong = {problem.stage for problem in problems}
    return [
        run_stage(stage, tools) for stage in stages_of(RunConfig.read(run.config), run) if stage.name in wrong
    ]


def rerun_run(run: RunFolder, share: float, train: bool, tools: Tools) -> Iterator[Rerun]:
    """Compute `share` of every finished stage again, at least one unit, and compare.

    Trainings are repeated only with `train` or a share of 1. Everything is made in a temporary folder inside
    the run, which is removed afterwards; the run itself is not changed. Raises StageError where `run` is not
    a run.
    """
    for stage in stages_of(RunConfig.read(run.config), run):
        record = StageRecord.read(run.record(stage.name))
        if record is None:
            continue
        with scratch_folder(run.path, "verify") as scratch:
            try:
                yield _rerun(stage, record, share, train, RunFolder(scratch), tools)
            except HmnetPipeError as error:
                yield Rerun(stage.name, "not run", remarks=[str(error)])


def _rerun(
    stage: Stage, record: StageRecord, share: float, train: bool, scratch: RunFolder, tools: Tools
) -> Rerun:
    if stage.repeats_whole and not (train or share >= 1):
        return Rerun(stage.name, "not run", remarks=["a training is repeated only with --rerun 1 or --train"])
    # Other sources outside the run are what the comparison is for; they are named in it.
    if not stage.inputs_outside and (changes := record.changes(stage.causes(tools))):
        return Rerun(stage.name, "not run", remarks=[f"it is not up to date ({changes[0]}); run it first"])
    elsewhere = _machine_changes(stage, record)
    result = stage.again(record, share, bool(elsewhere), scratch, tools)
    if result.verdict in ("close", "different") and not stage.inputs_outside:
        elsewhere = elsewhere or [
            "machine and versions are those of the record: its numbers were to be the same"
        ]
    return replace(result, remarks=[*result.remarks, *([] if stage.inputs_outside else elsewhere)])


def _machine_changes(stage: Stage, record: StageRecord) -> list[str]:
    """Return how the machine and the versions differ from the record, as `torch: 2.5.0 -> 2.6.0`."""
    versions: Mapping[str, str] = record.facts.get("versions", {})
    machine: Mapping[str, Any] = record.facts.get("machine", {})
    now = machine_kind()
    pairs: Iterable[tuple[str, Any, Any]] = [
        ("python", record.facts.get("python"), platform.python_version()),
        *((name, old, installed_version(name) or "absent") for name, old in versions.items()),
        # Detection and extraction run in workers of one thread, whatever this process has.
        *(
            (name, old, now.get(name))
            for name, old in machine.items()
            if name != "threads" or stage.repeats_whole
        ),
    ]
    return [f"{name}: {old} -> {new}" for name, old, new in pairs if old != new]
