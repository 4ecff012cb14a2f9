"""What a report says of a run's data, and what it was made from."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.advice import typed
from ...manifests.errors import HmnetPipeError, StageError
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS, IMAGES, PROBLEMS, SPLITS
from ...manifests.tables import read_table
from ...stages.base.stage import count_reasons
from ...stages.learning.columns import rows_in_turn, rows_of
from ...stages.learning.entities import entities_of
from ..run.config import RunConfig
from ..run.graph import stages_of
from .data import DataFacts, Provenance, StageFact

__all__ = ["data_facts", "provenance"]

_LABELS = 15


def data_facts(run: RunFolder, samples: pa.Table, task: str) -> DataFacts:
    """Return what the run was made of. Raises StageError where a table of prepare is missing."""
    record = StageRecord.known(run.record("prepare"))
    details = record.facts.get("counts", {}).get("details", {}) if record is not None else {}
    known = details.get("data", {}) if isinstance(details, dict) else {}
    images = read_table(run.images, IMAGES, "prepare", ["status"])
    splits: dict[str, dict[str, Any]] = {}
    mentions: dict[str, Counter[str]] = {}
    lengths: Counter[int] = Counter()
    for split in samples["split"].unique().to_pylist():
        rows = rows_of(samples, "split", split)
        splits[split] = {
            "samples": rows.num_rows,
            "images": rows.num_rows - rows["image_key"].null_count,
            "words": pc.sum(pc.list_value_length(rows["tokens"])).as_py() or 0,
        }
    for row in rows_in_turn(samples, ["split", "tags", "head", "tail", "relation"]):
        found = mentions.setdefault(row["split"], Counter())
        if task == "ner":
            entities = entities_of(row["tags"])
            found.update(name for name, _, _ in entities)
            lengths.update(last - first + 1 for _, first, last in entities)
        else:
            found[row["relation"]] += 1
            lengths.update(end - start for start, end in (row["head"], row["tail"]))
    order = [split for split in SPLITS if split in splits]
    labels, objects = _detected(run)
    return DataFacts(
        {split: {**splits[split], "known": str(known.get(split, "not recorded"))} for split in order},
        {split: dict(sorted(mentions[split].items())) for split in order},
        dict(sorted(lengths.items())),
        pc.sum(pc.equal(images["status"], "ok")).as_py() or 0,
        _problems(run),
        labels,
        objects,
    )


def _problems(run: RunFolder) -> tuple[tuple[str, str, int], ...]:
    """Return the reasons of what prepare refused or repaired, most frequent first."""
    try:
        table = read_table(run.problems, PROBLEMS, "prepare", ["kind", "reason"])
    except StageError:
        return ()
    counts = table.group_by(["kind", "reason"]).aggregate([([], "count_all")]).to_pylist()
    ranked = sorted(counts, key=lambda row: (-row["count_all"], row["kind"], row["reason"]))
    return tuple((row["kind"], row["reason"], row["count_all"]) for row in ranked)


def _detected(run: RunFolder) -> tuple[tuple[tuple[str, int], ...], int | None]:
    """Return the most frequent labels of detected objects, and how many objects there are, None: unknown."""
    try:
        labels = read_table(run.detections, DETECTIONS, "detect", ["label"])["label"]
    except StageError:
        return (), None
    return tuple(count_reasons(labels).items())[:_LABELS], len(labels)


def provenance(run: RunFolder, config: RunConfig, lock: str | HmnetPipeError) -> Provenance:
    """Return what the run was made from. lock: the text of its lock, or why it has none."""
    stages, commands, machines, versions = [], [], [], {}
    for stage in stages_of(config, run):
        record = StageRecord.known(run.record(stage.name))
        if record is None:
            continue
        facts = record.facts
        stages.append(
            StageFact(
                stage.name,
                record.fingerprint,
                str(facts.get("finished", "")),
                facts.get("seconds"),
                str(facts.get("versions", {}).get("hmnet-pipe", "")),
            )
        )
        commands.append(stage.command())
        versions.update(_texts(facts.get("versions", {})))
        machine = _machine(facts)
        if machine and machine not in machines:
            machines.append(machine)
    text, why = (lock, "") if isinstance(lock, str) else (None, str(lock))
    if text is not None:
        commands = [typed("reproduce", "hmnet-pipe.lock", "--text", "FOLDER", "--images", "FOLDER")]
    return Provenance(
        tuple(stages), dict(sorted(versions.items())), tuple(machines), text, why, tuple(commands)
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in values.items()}


def _machine(facts: Mapping[str, Any]) -> str:
    """Return what kind of machine a stage ran on, as one line."""
    kind = facts.get("machine", {})
    parts = [
        str(kind.get("processor", "")),
        f"{kind['threads']} threads" if "threads" in kind else "",
        f"GPU {kind['gpu']}" if kind.get("gpu", "none") != "none" else "no GPU",
        "multiplies bf16" if kind.get("bf16") else "",
        str(kind.get("system", "")),
        f"Python {facts['python']}" if "python" in facts else "",
    ]
    return ", ".join(part for part in parts if part) if kind else ""
