"""What a system reads of a run: the digests, the stages that make it, and how it is opened.

Importing this needs no torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cache.reader import FeatureCache
from ...manifests.run import RunFolder, extract_name
from ...manifests.schemas import DETECTIONS, IMAGES, SAMPLES
from ...manifests.tables import read_table, table_digest
from ..systems.registry import SystemInfo

if TYPE_CHECKING:
    from .extras import Extra

__all__ = ["input_digests", "inputs_of", "makers", "new_options", "open_extras"]


def input_digests(info: SystemInfo, run: RunFolder, feature_set: str | None) -> dict[str, str]:
    """Return the digest of everything that a system reads of a run, by name.

    feature_set: the one that it reads, or None. Raises StageError, which names the command that makes it, for
    what is not there.
    """
    digests = {"samples": table_digest(run.samples, SAMPLES, "prepare")}
    if feature_set is not None:
        digests["features"] = FeatureCache(run.features(feature_set)).digest()
    if info.objects:
        digests["detections"] = table_digest(run.detections, DETECTIONS, "detect")
    return digests


def makers(info: SystemInfo, feature_set: str | None) -> tuple[str, ...]:
    """Return the names of the stages that make what a system reads."""
    detect = ("detect",) if info.objects else ()
    return ("prepare", *detect, *((extract_name(feature_set),) if feature_set is not None else ()))


def inputs_of(info: SystemInfo, run: RunFolder, feature_set: str | None) -> list[Path]:
    """Return the files and folders of a run that a system reads."""
    tables = [run.samples, *((run.images, run.detections) if info.objects else ())]
    return [*tables, *((run.features(feature_set),) if feature_set is not None else ())]


def new_options(
    info: SystemInfo, run: RunFolder, keys: Sequence[str | None], views: int | None
) -> dict[str, Any]:
    """Return the options of a new model of a system.

    keys: the images of the training split, from which vocabularies come. views: of an image's features; None:
    the system reads none. Raises StageError where a table is missing.
    """
    options = dict(info.options)
    if info.objects:
        from .extras import object_vocabulary

        detections = read_table(run.detections, DETECTIONS, "detect")
        ranks = detections["rank"].to_pylist()
        options["object_labels"] = object_vocabulary(detections, keys)
        options["objects"] = views - 1 if views is not None else 1 + max(ranks, default=0)
    return options


def open_extras(info: SystemInfo, run: RunFolder, options: Mapping[str, Any]) -> tuple["Extra", ...]:
    """Return what a model of a system with these options reads besides words and features.

    Raises StageError where a table is missing.
    """
    found: list[Extra] = []
    if info.objects:
        from .extras import ObjectLabels

        images = read_table(run.images, IMAGES, "prepare").select(["key", "width", "height"]).to_pylist()
        sizes = {row["key"]: (row["width"], row["height"]) for row in images}
        detections = read_table(run.detections, DETECTIONS, "detect")
        found.append(ObjectLabels(detections, sizes, options["object_labels"], options["objects"]))
    return tuple(found)
