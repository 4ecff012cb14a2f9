"""How each stage made what a model reads: kept in its config.json, so that posts are made into the same.

It is no part of config.json's digest: the network is the same wherever its files lay.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...manifests.files import read_text
from ...manifests.fingerprint import digest_file
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder

__all__ = ["CONFIG", "SOURCES", "TRAINED", "made_by", "made_differently", "makers_of", "output_digest"]

CONFIG = "config.json"
"""The file of a model's configuration in its folder."""

TRAINED = "train"
"""What says how the model itself was computed."""

SOURCES = frozenset({"prepare"})
"""The stages whose settings say where a run's own data lie: no post comes from there."""

# How a stage computes and stores: it moves the last bits of numbers, and where they come from it not at all.
_ROUNDING = ("precision", "kernels", "dtype")

# Files of the user's that a stage read in the place of a network, by the names of their digests.
_FILES = ("boxes", "annotations")

# What a feature set keeps: the features are compared where they are opened, whatever their set is called.
_OF_SETS = ("levels", "views")


def makers_of(run: RunFolder, stages: Iterable[str]) -> dict[str, StageRecord]:
    """Return the records of these stages of a run by the kind of each: "extract" for any set.

    "detect" is left out where it has run since the features were extracted: they show other boxes then.
    """
    found: dict[str, StageRecord] = {}
    for stage in stages:
        record = StageRecord.known(run.record(stage))
        if record is not None:
            found["extract" if stage.startswith("extract") else stage] = record
    shown = found.get("extract", found.get("scenes"))
    if shown is not None and "scenes" in shown.inputs:  # whose boxes come from where the scenes do
        shown = StageRecord.known(run.record("scenes"))
    boxes = found["detect"].outputs.get("detections") if "detect" in found else None
    if shown is not None and boxes is not None and shown.inputs.get("detections") != boxes:
        del found["detect"]
    return found


def made_by(run: RunFolder, stages: Iterable[str]) -> dict[str, Any]:
    """Return how these stages of a run made what they made, by the kind of each.

    parameters: what decided the result. weights: the digests of what computed it. settings: those that were
    given; a path in them is where the weights came from. carried: what a stage learned from this run's data.
    files: the digests of files that were read in the place of a network.
    """
    found: dict[str, Any] = {}
    for kind, record in makers_of(run, stages).items():
        facts: dict[str, Any] = {
            name: record.facts[name] for name in ("settings", "carried") if name in record.facts
        }
        if kind in SOURCES:
            facts.pop("settings", None)
        if files := {name: record.inputs[name] for name in _FILES if name in record.inputs}:
            facts["files"] = files
        found[kind] = {"parameters": record.parameters, "weights": record.weights, **facts}
    return found


def made_differently(one: Mapping[str, Any], causes: StageRecord) -> tuple[list[str], list[str]]:
    """Return what differs between how a stage made what a model reads and how it would make it now.

    one: the stage's part of `made_by`. The first list is of what decides the result, the second of how it is
    rounded. A fact that one of them lacks depends on whether there is an image at all.
    """
    then = StageRecord(causes.stage, 0, one.get("parameters", {}), {}, one.get("weights", {}), {})
    now = StageRecord(causes.stage, 0, causes.parameters, {}, causes.weights, {})
    changes = [
        change
        for change in then.changes(now)
        if "absent" not in change and change.split(":")[0] not in _OF_SETS
    ]
    rounding = [change for change in changes if change.split(":")[0] in _ROUNDING]
    return [change for change in changes if change not in rounding], rounding


def output_digest(path: Path) -> str:
    """Return the digest of a file of a model's folder; of its config.json without what `made_by` returned."""
    if path.name != CONFIG:
        return digest_file(path)
    try:
        text = read_text(path)
        values = json.loads(text)
        if values.pop("made_by", None) is not None:
            text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    except OSError:  # too large for a configuration, or not to be read
        if not path.is_file():
            raise
        return digest_file(path)
    except (ValueError, AttributeError, RecursionError, TypeError):  # a damaged file has another digest
        return digest_file(path)
    return hashlib.sha256(text.encode()).hexdigest()
