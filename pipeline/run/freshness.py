"""What has changed since a stage was last brought up to date, as far as settings and the times of files tell: what `make` goes by.

A record's time is that of the start of the command that last found its stage up to date or brought it there: what is newer may have
changed. The stages themselves go by contents (stages.stage.Stage) and may then find that nothing has.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...stages.base.stage import Stage
from ...stages.finetune.stage import Finetune
from ...stages.prepare.readers import find_texts
from ...stages.prepare.stage import Prepare
from ...stages.systems.registry import system_is_visual
from ...stages.train.stage import Train
from .config import RunConfig

__all__ = ["make_words", "note_up_to_date", "settings_of", "sources_since", "why_changed"]


def settings_of(stage: Stage) -> dict[str, Any]:
    """The settings of a stage as they were given ("auto" is "auto"), as JSON values."""
    values = asdict(stage.settings) if hasattr(stage, "settings") else {}
    values.update({"objects": stage.objects} if hasattr(stage, "objects") else {})
    settings: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return settings


def why_changed(stage: Stage) -> str | None:
    """Why the stage may have something to do apart from the stages before it, or None. Raises StageError for a damaged record,
    InputError where the texts cannot be found."""
    path = stage.run.record(stage.name)
    record = StageRecord.read(path)
    if record is None:
        return "it never ran"
    if record.schema_version != stage.schema_version:
        return f"schema_version: {record.schema_version} -> {stage.schema_version}"
    if isinstance(stage, Prepare):
        splits = find_texts(stage.settings.text, stage.settings.task, stage.settings.format).files
        if {f"text.{split}" for split in splits} != {
            name for name in record.inputs if name.startswith("text.")
        }:
            return f"{stage.settings.text} holds other files"
    since = path.stat().st_mtime_ns
    new = settings_of(stage)
    # A record from before settings were kept in it is taken to mean those of a run.toml that nobody has written since.
    old = record.facts.get(
        "settings", new if stage.run.config.is_file() and stage.run.config.stat().st_mtime_ns <= since else {}
    )
    if changes := [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]:
        return changes[0]
    if gone := [file for name in record.outputs if not (file := _output(stage, name)).exists()]:
        return f"{gone[0]} is gone"
    return next((f"{source} is newer" for source in sources_since(stage, since)), None)


def make_words(config: RunConfig, run: RunFolder, systems: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """What the Makefile must be told of a run: the name of each stage that `why_changed` has a reason for, and visual:SYSTEM for each
    system that reads features. Raises InputError for a system that is unknown or made for another task."""
    stages = [config.stage(name, run) for name in ("prepare", "detect", "extract")]
    stages += [config.stage("train", run, system=system, seed=seed) for system in systems for seed in seeds]
    # Killed between its record and run.toml, prepare has only to write the latter.
    changed = [
        stage.name
        for stage in stages
        if why_changed(stage) or (stage.name == "prepare" and not run.config.is_file())
    ]
    return changed + [f"visual:{system}" for system in systems if system_is_visual(system, config.task)]


def sources_since(stage: Stage, since: int) -> Iterator[Path]:
    """What a stage reads from outside the run and what was changed after `since` (nanoseconds): texts, images, weights.

    Of a folder everything below it counts, and it itself: what was taken out of it has changed it.
    """
    for source in _sources(stage):
        if source.is_dir():
            yield from _below(source, since, set())
        elif _changed_at(source.stat()) > since:
            yield source


def note_up_to_date(stage: Stage, record: StageRecord, started: int) -> None:
    """For a stage that finds itself up to date: keep its settings in its record, and bring the record's time to `started`
    (nanoseconds) if anything that it depends on is newer, so that `make` is satisfied and nothing behind it is disturbed for nothing."""
    path = stage.run.record(stage.name)
    since = path.stat().st_mtime_ns
    before = [stage.run.record(name) for name in _stages_before(stage)]
    newer = any(other.is_file() and other.stat().st_mtime_ns > since for other in before) or any(
        True for _ in sources_since(stage, since)
    )
    settings = settings_of(stage)
    if newer or record.facts.get("settings") != settings:
        replace(record, facts={**record.facts, "settings": settings}).write(path)
        stamp = started if newer else since
        os.utime(path, ns=(stamp, stamp))


def _output(stage: Stage, name: str) -> Path:
    """The file by which an output that a record names can be seen to be there."""
    known = {"outcomes": stage.run.outcomes(stage.name), "features": stage.run.features / "index.parquet"}
    if name in known:
        return known[name]
    return stage.folder / name if isinstance(stage, (Train, Finetune)) else stage.run.path / f"{name}.parquet"


def _stages_before(stage: Stage) -> tuple[str, ...]:
    if isinstance(stage, (Train, Finetune)):
        return ("prepare", "extract") if stage.visual else ("prepare",)
    return {"prepare": (), "detect": ("prepare",)}.get(stage.name, ("prepare", "detect"))


def _sources(stage: Stage) -> Iterator[Path]:
    if isinstance(stage, Prepare):
        yield from find_texts(stage.settings.text, stage.settings.task, stage.settings.format).files.values()
        if stage.settings.images is not None:
            yield stage.settings.images
    else:
        for name in ("weights", "encoder"):
            value = getattr(getattr(stage, "settings", None), name, None)
            # "default", "random" and the name of a model on a hub are no paths here.
            if isinstance(value, str) and (path := Path(value).expanduser()).exists():
                yield path


def _below(folder: Path | os.DirEntry[str], since: int, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """By scandir and not by Path, of which a million would take a minute. `seen` holds the folders on the way: a link may lead back."""
    status = folder.stat()
    if (identity := (status.st_dev, status.st_ino)) in seen:
        return
    seen.add(identity)
    if _changed_at(status) > since:
        yield Path(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_dir():
                    yield from _below(entry, since, seen)
                elif _changed_at(entry.stat()) > since:
                    yield Path(entry)
            except OSError:  # a link that leads nowhere, or a file that has just gone
                continue


def _changed_at(status: os.stat_result) -> int:
    """The later of both times, in nanoseconds: a copy or a move may bring an old time of modification with it."""
    return max(status.st_mtime_ns, status.st_ctime_ns)
