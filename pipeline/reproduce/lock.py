"""`hmnet-pipe lock`: what a result was made from and what came out, in a small file to commit beside a paper.

The file is TOML. Stages are in their order, keys in a fixed one, and there is no path, host or time of day,
so that two locks differ where their runs do. `hmnet-pipe reproduce` makes the run again from it.
docs/reproducibility.md explains each table.
"""

import math
import tomllib
from collections.abc import Container, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import tomlkit

from ...manifests.advice import typed
from ...manifests.errors import InputError, StageError
from ...manifests.files import read_text, reason_of, write_text
from ...manifests.fingerprint import digest_json
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import IMAGES, SAMPLES, SPLITS
from ...manifests.tables import read_batches, read_table
from ...stages.base.settings import split_hub
from ...stages.base.stage import Stage
from ...stages.base.tools import SILENT, Tools
from ...stages.prepare.identity import identify
from ..run.config import RunConfig
from ..run.graph import stages_of, with_before
from ..run.runner import stage_state

__all__ = [
    "LOCK_NAME",
    "data_facts",
    "environment_of",
    "lock_run",
    "lock_text",
    "read_lock",
]

LOCK_NAME = "hmnet-pipe.lock"
FORMAT = 2

_HEAD = (
    "What a run was made from and what came out. Made by `hmnet-pipe lock`; do not edit.",
    "To make it again and compare: hmnet-pipe reproduce FILE --text FOLDER --images FOLDER",
)
_TABLES = ("config", "data", "stages", "environments")
_MORE_TABLES = ("scores", "probes")
# The keys of each table of a table, with their types.
_KEYS: dict[str, dict[str, Any]] = {
    "stages": {
        "schema_version": int,
        "environment": int,
        "parameters": dict,
        "inputs": dict,
        "outputs": dict,
    },
    "data": {"digest": str},
}
_SCORES = ("f1", "precision", "recall")


def lock_run(
    run: RunFolder,
    output: Path | None = None,
    tools: Tools = SILENT,
    trainings: Container[str] | None = None,
) -> Path:
    """Write the lock of `run` to `output` (default: into its folder) and return where it is.

    trainings: see `lock_text`. Raises as it does.
    """
    text = lock_text(run, tools, trainings)
    path = output or run.path / LOCK_NAME
    write_text(path, text)
    return path


def lock_text(run: RunFolder, tools: Tools = SILENT, trainings: Container[str] | None = None) -> str:
    """Return the lock of `run`.

    trainings: the only ones to lock, by the names of their stages, with what they read; None: all. Raises
    StageError, which names the first stage that is not finished and fresh, and the command to run.
    """
    config = RunConfig.read(run.config)
    finished = _finished(run, config, tools, trainings)
    environments: list[dict[str, Any]] = []
    stages = {}
    for stage, record in finished:
        environment = environment_of(record)
        if environment not in environments:
            environments.append(environment)
        stages[stage.name] = {
            "schema_version": record.schema_version,
            "fingerprint": record.fingerprint,
            "environment": environments.index(environment) + 1,
            "parameters": record.parameters,
            "inputs": record.inputs,
            "weights": record.weights,
            "outputs": record.outputs,
        }
    values = {
        "format": FORMAT,
        "preset": config.preset,
        "task": config.task,
        "config": {
            **{name: _portable(settings) for name, settings in config.tables.items()},
            "features": {name: feature_set.to_table() for name, feature_set in config.sets.items()},
            "recipes": {name: dict(recipe) for name, recipe in config.recipes.items()},
        },
        "data": data_facts(run),
        "stages": stages,
        "scores": {stage.name: scores for stage, _ in finished if (scores := stage.scores()) is not None},
        "environments": {
            str(number): environment for number, environment in enumerate(environments, start=1)
        },
        "probes": {stage.name: probes for stage, _ in finished if (probes := stage.probes())},
    }
    return _toml(values)


def read_lock(path: Path) -> dict[str, Any]:
    """Return the content of a lock. Raises InputError where `path` is not a lock of this format."""
    try:
        values = tomllib.loads(read_text(path))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({reason_of(error)}); give the file that `hmnet-pipe lock` wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid TOML ({reason_of(error)}); make it again with `hmnet-pipe lock`"
        ) from error
    if values.get("format") != FORMAT:
        raise InputError(
            f"{path} is not a lock of format {FORMAT}, which this hmnet-pipe reads; "
            "make it again with `hmnet-pipe lock`"
        )
    if wrong := next(_faults(values), None):
        raise InputError(f"{path} {wrong}; make it again with `hmnet-pipe lock`")
    return values


def _faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of a lock's content is missing or of another type than `lock_run` writes."""
    yield from _untyped("", values, dict.fromkeys(_TABLES, dict))
    for name in _TABLES + _MORE_TABLES:
        tables = values.get(name, {})
        if not isinstance(tables, dict):
            yield f"has no table in {name}"
            return
        for part, table in tables.items():
            yield from _untyped(f"{name}.{part}", table, _KEYS.get(name, {}))
    for split in ("images", *SPLITS):
        if split in values["data"] or split == "images":
            numbers = ("usable",) if split == "images" else ("samples", "with_image")
            yield from _untyped(f"data.{split}", values["data"].get(split), dict.fromkeys(numbers, int))
    for name, stage in values["stages"].items():
        for group in ("inputs", "outputs", "weights"):
            digests = stage.get(group, {})
            if not isinstance(digests, dict) or not all(isinstance(one, str) for one in digests.values()):
                yield f"has no digests in stages.{name}.{group}"
        for key in ("seed", "subset_seed", "shots", "percent"):
            if type(stage["parameters"].get(key, 0)) is not int:
                yield f"has no whole number in stages.{name}.parameters.{key}"
    for name, scores in values.get("scores", {}).items():
        for split in (split for split in SPLITS if split in scores):
            yield from _untyped(f"scores.{name}.{split}", scores[split], dict.fromkeys(_SCORES, float))
            if not all(math.isfinite(scores[split][score]) for score in _SCORES):
                yield f"has no finite numbers in scores.{name}.{split}"
    for number, environment in values["environments"].items():
        if not isinstance(environment.get("versions", {}), dict):
            yield f"has no table environments.{number}.versions"
    for name, outputs in values.get("probes", {}).items():
        for output, probes in outputs.items():
            if not isinstance(probes, list) or not all(isinstance(probe, dict) for probe in probes):
                yield f"has no list of tables in probes.{name}.{output}"


def _untyped(where: str, table: Any, kinds: Mapping[str, Any]) -> Iterator[str]:
    """Yield which keys a table of a lock lacks, or holds something else under; `kinds` are their types."""
    if not isinstance(table, dict):
        yield f"has no table {where}"
        return
    for key, kind in kinds.items():
        place = f"{where}.{key}" if where else key
        if key not in table:
            yield f"lacks {place}"
        elif type(table[key]) is not kind:
            yield f"has {str(table[key])[:80]!r} in {place}, which must be of type {kind.__name__}"


def _finished(
    run: RunFolder, config: RunConfig, tools: Tools, trainings: Container[str] | None
) -> list[tuple[Stage, StageRecord]]:
    """Return every stage of the run with its record, without optional ones that never ran.

    Raises StageError where one is not fresh.
    """
    stages = stages_of(config, run)
    if trainings is not None:
        stages = [stage for stage in stages if not stage.repeats_whole or stage.name in trainings]
        read = with_before(config, run, [stage.name for stage in stages if stage.repeats_whole])
        stages = [stage for stage in stages if stage.name in read]
    names = {stage.name for stage in stages}
    begun = sorted(path.stem for path in (run.path / "stages").glob("*.parts"))
    if begun := [name for name in begun if trainings is None or name in names]:
        raise StageError(
            f"{begun[0]} of {run.path} is not finished; "
            f"run it to its end and lock again (`{typed('status', run.path)}`)"
        )
    finished = []
    for stage in stages:
        record = StageRecord.read(run.record(stage.name))
        if record is None and stage.optional and not stage.place.exists():
            continue
        state, reasons = stage_state(stage, stage.causes(tools))
        if record is None or state != "fresh":
            because = f" because of {'; '.join(reasons)}" if reasons else ""
            raise StageError(
                f"{stage.name} of {run.path} is {state}{because}; run `{stage.command()}` and lock again"
            )
        finished.append((stage, record))
    return finished


def _portable(settings: Any) -> dict[str, Any]:
    """Return the settings of one stage without paths.

    A local file or folder is represented by its name, as ./NAME; the images by whether there were any.
    """
    values: dict[str, Any] = {}
    for each in fields(settings):
        value, words = getattr(settings, each.name), each.metadata.get("words")
        if words is not None and value not in words and _is_local(split_hub(value)[1]):
            before, name = split_hub(value)
            values[each.name] = f"{before}./{Path(name).name}"
        elif each.name == "images":
            values[each.name] = value is not None
        elif each.name not in ("text", "task") and value is not None:
            values[each.name] = value
    return values


def _is_local(name: str) -> bool:
    path = Path(name).expanduser()
    return path.is_absolute() or name.startswith(".") or path.exists()


def data_facts(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return what the data of a run are.

    For each split: the number, digest and name of its samples, and how many have an image. For the usable
    images: number and digest.
    """
    # In parts, as a million samples with their words would take gigabytes.
    columns = [name for name in SAMPLES.names if name not in ("text", "offsets")]
    parts = read_batches(run.samples, SAMPLES, "prepare", columns)
    identities = identify(row for part in parts for row in part.to_pylist())
    held = read_table(run.samples, SAMPLES, "prepare", ["split", "image_key"])
    shown = pc.value_counts(held.filter(pc.is_valid(held["image_key"]))["split"]).to_pylist()
    with_image = {row["values"]: row["counts"] for row in shown}
    usable = [
        row["key"] for row in read_table(run.images, IMAGES, "prepare").to_pylist() if row["status"] == "ok"
    ]
    facts: dict[str, dict[str, Any]] = {
        split: {
            "samples": identity.samples,
            "with_image": with_image.get(split, 0),
            "known_as": identity.known_as,
            "digest": identity.digest,
        }
        for split, identity in identities.items()
    }
    return {**facts, "images": {"usable": len(usable), "digest": digest_json(sorted(usable))}}


def environment_of(record: StageRecord) -> dict[str, Any]:
    """Return the environment of a stage that can change the last bits: machine kind, Python, packages."""
    facts = record.facts
    return {**facts.get("machine", {}), "python": facts.get("python"), "versions": facts.get("versions", {})}


def _toml(values: Mapping[str, Any]) -> str:
    document = tomlkit.document()
    for line in _HEAD:
        document.add(tomlkit.comment(line))
    for name, value in values.items():
        if value not in (None, {}, []):
            document.add(name, _item(value))
    return tomlkit.dumps(document)


def _item(value: Any) -> Any:
    """Return a value as TOML.

    A list of records has one record per line, a mapping of only numbers is one line, and a table of tables
    has no header of its own.
    """
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        array = tomlkit.array().multiline(True)
        for record in value:
            array.append(_line(record))
        return array
    if not isinstance(value, Mapping):
        return tomlkit.item(value)
    if all(isinstance(part, float) for part in value.values()):
        return _line(value)
    table = tomlkit.table(is_super_table=all(isinstance(part, Mapping) for part in value.values()))
    for name, part in value.items():
        if part not in (None, {}, []):
            table.add(name, _item(part))
    return table


def _line(record: Mapping[str, Any]) -> Any:
    line = tomlkit.inline_table()
    line.update(record)
    return line
