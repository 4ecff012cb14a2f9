"""Which detector found the objects that a model was trained on: kept beside it, compared before it is scored.

It is no part of config.json: the network is the same whatever found its boxes, and so are the digests of
models that were trained before this was kept.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ...manifests.advice import typed
from ...manifests.errors import StageError
from ...manifests.files import read_text, reason_of, write_text
from ...manifests.record import StageRecord
from ...manifests.run import DEFAULT_SET, RunFolder, extract_name
from ..base.tools import Tools

__all__ = ["DETECTED_FILE", "Detected", "check_detected", "detected_in", "keep_detected", "kept_detected"]

DETECTED_FILE = "detector.json"


@dataclass(frozen=True)
class Detected:
    """What decides an image's objects. weights: the digest of the detector's weights."""

    detector: str
    weights: str
    min_score: float
    objects: int

    def __post_init__(self) -> None:
        if self.objects == 0:  # no weights were used, and earlier versions recorded some
            object.__setattr__(self, "weights", "")

    def __str__(self) -> str:
        weights = f"weights {self.weights[:12]}"
        return f"{self.detector} ({weights}, min_score {self.min_score}, objects {self.objects})"


def detected_in(run: RunFolder, feature_set: str | None = DEFAULT_SET) -> Detected | None:
    """Return what found the objects of a run by its records, or None where they do not show it.

    They do not where detect or its weights are not recorded, or where extract read other boxes for the
    feature set than detect wrote last.
    """
    detect = StageRecord.read(run.record("detect"))
    extract = StageRecord.read(run.record(extract_name(feature_set))) if feature_set is not None else None
    # Boxes of scenes come from where the scenes do.
    if extract is not None and "scenes" in extract.inputs:
        extract = StageRecord.read(run.record("scenes"))
    if detect is None or ("detector" not in detect.weights and detect.parameters.get("objects") != 0):
        return None
    if extract is not None and extract.inputs.get("detections") != detect.outputs.get("detections"):
        return None
    facts = detect.parameters
    weights = detect.weights.get("detector", "")
    return Detected(facts["detector"], weights, facts["min_score"], facts["objects"])


def keep_detected(folder: Path, detected: Detected | None) -> None:
    """Write beside the model in `folder` what found its objects, or remove that file where it is unknown."""
    if detected is None:
        (folder / DETECTED_FILE).unlink(missing_ok=True)
    else:
        write_text(folder / DETECTED_FILE, json.dumps(asdict(detected), indent=2) + "\n")


def kept_detected(folder: Path) -> Detected | None:
    """Return what found the objects that the model in `folder` was trained on, or None where that is unknown.

    A model that was trained before this was kept has the detector of the run that it lies in, unless detect
    has run there since.
    """
    path = folder / DETECTED_FILE
    if os.path.lexists(path):
        try:
            found = Detected(**json.loads(read_text(path)))
            if not isinstance(found.detector, str) or not isinstance(found.weights, str):
                raise TypeError("its detector and weights are no texts")
            return found
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise StageError(
                f"{path} is damaged ({reason_of(error)}); delete it, or train the model again"
            ) from error
    models = next((parent for parent in folder.resolve().parents if parent.name == "models"), None)
    if models is None:
        return None
    run = RunFolder(models.parent)
    record, model = run.record("detect"), folder / "model.safetensors"
    if not record.is_file() or record.stat().st_mtime_ns > model.stat().st_mtime_ns:
        return None
    return detected_in(run)


def check_detected(folder: Path, data: RunFolder, feature_set: str | None, tools: Tools) -> None:
    """Raise StageError where another detector found the objects of `data` than those of the model in
    `folder`.

    Where it is not known for both, say so.
    """
    trained, there = kept_detected(folder), detected_in(data, feature_set)
    if trained is None or there is None:
        whose = f"the objects that the model in {folder} was trained on"
        whose = whose if trained is None else f"the objects of {data.path}"
        tools.say(f"note: which detector found {whose} is not recorded, so it is not compared")
    elif trained != there:
        options = ("--detector", trained.detector, "--min-score", trained.min_score)
        detect = typed("detect", data.path, *options, "--objects", trained.objects)
        raise StageError(
            f"the objects of {data.path} were found by {there}, and the model in {folder} was trained on "
            f"those of {trained}; run `{detect}` with those weights, and extract again"
        )
