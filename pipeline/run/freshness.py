"""What may have changed since a stage was last up to date, judged by settings and file times, for `make`.

A record's time is the start of the command that last found its stage up to date or brought it there: anything
newer may have changed. The stages themselves compare contents (stages.base.stage), and may then find that
nothing has changed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.trial import Trial
from ...stages.base.stage import Stage
from ...stages.base.tools import counted
from ...stages.learning.inputs import makers
from ...stages.systems.registry import system_for
from .config import RunConfig
from .graph import stage_named

__all__ = ["make_words", "note_up_to_date", "sources_since", "why_changed"]


def why_changed(stage: Stage) -> str | None:
    """Return why the stage may have something to do, apart from the stages before it, or None.

    Raises StageError for a damaged record, and InputError where the texts cannot be found.
    """
    path = stage.run.record(stage.name)
    record = StageRecord.read(path)
    if record is None:
        return "it never ran"
    if record.schema_version != stage.schema_version:
        return f"schema_version: {record.schema_version} -> {stage.schema_version}"
    if (reason := stage.other_sources(record)) is not None:
        return reason
    since = path.stat().st_mtime_ns
    new = stage.given()
    # A record from before records kept settings is taken to hold those of a run.toml that nobody has written
    # since.
    old = record.facts.get("settings")
    if old is None:
        config = stage.run.config
        old = new if config.is_file() and config.stat().st_mtime_ns <= since else {}
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            return f"{name}: {old.get(name)} -> {new.get(name)}"
    if gone := [file for name in record.outputs if not (file := stage.output_path(name)).exists()]:
        return f"{gone[0]} no longer exists"
    if missed := sum(stage.missed().values()):
        return f"{counted(missed, 'images')} could not be read"
    return next((f"{source} is newer" for source in sources_since(stage, since)), None)


def make_words(config: RunConfig, run: RunFolder, trials: Sequence[Trial]) -> list[str]:
    """Return what the Makefile must know about a run, as words.

    These are the name of each stage for which `why_changed` has a reason, and reads:SYSTEM:STAGE for each
    stage that makes what a system reads. Raises InputError for a system that is unknown or made for another
    task.
    """
    infos = {trial.system: system_for(trial.system, config.task) for trial in trials}
    read = {name: makers(info, info.feature_set()) for name, info in infos.items()}
    made = dict.fromkeys(stage for stages in read.values() for stage in stages)
    names = dict.fromkeys(("prepare", "detect", "extract", *made))
    stages: list[Stage] = [stage_named(config, run, name) for name in names]
    stages += [config.stage("train", run, trial) for trial in trials]
    # If prepare was killed between its record and run.toml, it has only to write the latter.
    unwritten = [] if run.config.is_file() else ["prepare"]
    changed = [stage.name for stage in stages if stage.name in unwritten or why_changed(stage)]
    return changed + [f"reads:{system}:{stage}" for system, stages in read.items() for stage in stages]


def sources_since(stage: Stage, since: int) -> Iterator[Path]:
    """Yield whatever a stage reads from outside the run that was changed after `since` (nanoseconds).

    In a folder everything below it counts, and so does the folder itself, which changes when files are
    removed.
    """
    for source in stage.sources():
        if source.is_dir():
            yield from _below(source, since, set())
        elif _changed_at(source.stat()) > since:
            yield source


def note_up_to_date(stage: Stage, record: StageRecord, started: int) -> None:
    """Record that a stage has found itself up to date.

    Its settings are kept in its record. If anything that it depends on is newer, the record's time becomes
    `started` (nanoseconds), so that `make` is satisfied and no later stage is disturbed without reason.
    """
    path = stage.run.record(stage.name)
    since = path.stat().st_mtime_ns
    before = [stage.run.record(name) for name in stage.before()]
    newer = any(other.is_file() and other.stat().st_mtime_ns > since for other in before) or any(
        True for _ in sources_since(stage, since)
    )
    settings = stage.given()
    if newer or record.facts.get("settings") != settings:
        replace(record, facts={**record.facts, "settings": settings}).write(path)
        stamp = started if newer else since
        os.utime(path, ns=(stamp, stamp))


def _below(folder: Path | os.DirEntry[str], since: int, visited: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield what was changed below `folder`. Uses scandir: a million Paths would take a minute.

    visited: the folders already walked, since a link may lead back to one of them.
    """
    status = folder.stat()
    if (identity := (status.st_dev, status.st_ino)) in visited:
        return
    visited.add(identity)
    if _changed_at(status) > since:
        yield Path(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_dir():
                    yield from _below(entry, since, visited)
                elif _changed_at(entry.stat()) > since:
                    yield Path(entry)
            except OSError:  # a link to nothing, or a file that has just been removed
                continue


def _changed_at(status: os.stat_result) -> int:
    """Return the later of both times (nanoseconds): a copy or a move may keep an old modification time."""
    return max(status.st_mtime_ns, status.st_ctime_ns)
