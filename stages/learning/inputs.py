"""What a system reads of a run: the digests, the stages that make it, and how it is opened.

Importing this needs no torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...cache.reader import FeatureCache
from ...cache.spec import ALL, SCENE, FeatureSpec
from ...manifests.advice import typed
from ...manifests.errors import StageError
from ...manifests.record import StageRecord
from ...manifests.run import DEFAULT_SET, SCENE_SET, RunFolder, extract_name
from ...manifests.schemas import (
    CHAIN,
    DEPENDENCIES,
    DETECTIONS,
    GEOMETRY,
    IMAGES,
    SAMPLES,
    SCENE_GRAPH,
    SCENES,
)
from ...manifests.tables import read_table, table_digest
from ..systems.registry import SystemInfo
from ..vision.sets import SCENE_VECTOR

if TYPE_CHECKING:
    from ..text.reader import TextReader
    from .extras import Extra

__all__ = ["features_of", "input_digests", "inputs_of", "makers", "new_options", "open_extras"]


def _graphs(info: SystemInfo, run: RunFolder) -> dict[str, tuple[Path, pa.Schema]]:
    """Return the table of each graph that a system reads, by the name of the stage that makes it."""
    tables = {"scenes": (run.scenes, SCENES), "dependencies": (run.dependencies, DEPENDENCIES)}
    return {name: tables[name] for name in info.graphs}


def input_digests(info: SystemInfo, run: RunFolder, feature_set: str | None) -> dict[str, str]:
    """Return the digest of everything that a system reads of a run, by name.

    feature_set: the one that it reads, or None. Raises StageError, which names the command that makes it, for
    what is not there.
    """
    digests = {"samples": table_digest(run.samples, SAMPLES, "prepare")}
    if feature_set is not None:
        digests["features"] = features_of(run, feature_set).digest()
    if info.objects:
        digests["detections"] = table_digest(run.detections, DETECTIONS, "detect")
    for stage, (path, schema) in _graphs(info, run).items():
        digests[stage] = table_digest(path, schema, stage)
    if feature_set is not None and "scenes" in digests:
        made_from = StageRecord.known(run.record(extract_name(feature_set)))
        if made_from is not None and made_from.inputs.get("scenes", digests["scenes"]) != digests["scenes"]:
            raise StageError(
                f"{run.features(feature_set)} shows the objects of other scenes than {run.scenes} holds now; "
                f"run `{typed('extract', run.path, '--features', feature_set)}` again"
            )
    return digests


def features_of(run: RunFolder, feature_set: str) -> FeatureCache:
    """Return a feature set of a run. Raises StageError, which names the command that makes it."""
    folder = run.features(feature_set)
    if feature_set == DEFAULT_SET or folder.exists():
        return FeatureCache(folder)
    if feature_set == SCENE_SET:
        raise StageError(
            f"{folder} does not exist: it holds the features that `{typed('scenes', run.path)}` is given by "
            f"--features; without such a file, extract and train with --features {SCENE_VECTOR.name}"
        )
    raise StageError(
        f"{folder} does not exist; run `{typed('extract', run.path, '--features', feature_set)}` first"
    )


def makers(info: SystemInfo, feature_set: str | None) -> tuple[str, ...]:
    """Return the names of the stages that make what a system reads."""
    detect = ("detect",) if info.objects else ()
    return (
        "prepare",
        *detect,
        *info.graphs,
        *((extract_name(feature_set),) if feature_set is not None else ()),
    )


def inputs_of(info: SystemInfo, run: RunFolder, feature_set: str | None) -> list[Path]:
    """Return the files and folders of a run that a system reads."""
    tables = [run.samples, *((run.images, run.detections) if info.objects else ())]
    tables += [path for path, _ in _graphs(info, run).values()]
    return [*tables, *((run.features(feature_set),) if feature_set is not None else ())]


def new_options(
    info: SystemInfo, run: RunFolder, keys: Sequence[str | None], spec: FeatureSpec | None
) -> dict[str, Any]:
    """Return the options of a new model of a system.

    keys: the images of the training split, from which vocabularies come. spec: of the features that the
    system reads, or None. Raises StageError where a table is missing.
    """
    options = dict(info.options)
    objects = None if spec is None else spec.views - (spec.regions == ALL)
    if info.objects:
        from .extras import object_vocabulary

        detections = read_table(run.detections, DETECTIONS, "detect")
        ranks = detections["rank"].to_pylist()
        options["object_labels"] = object_vocabulary(detections, keys)
        options["objects"] = 1 + max(ranks, default=0) if objects is None else objects
    if "scenes" in info.graphs:
        from .graphs import scene_vocabularies

        scenes = read_table(run.scenes, SCENES, "scenes")
        options["objects"] = most = objects or 0
        options["scene"] = _described(spec)
        options["object_labels"], options["predicates"] = scene_vocabularies(scenes, keys, most)
        options["qualifiers"] = _replaced(info, scenes, run)
    return options


def _described(spec: FeatureSpec | None) -> str:
    """Return whose objects features describe: those of scenes from SCENE_GRAPH or GEOMETRY, or any (SCENE).

    Of the user's scene graphs it is what the user gave, and of geometry the detections.
    """
    if spec is not None and spec.regions == SCENE:
        return SCENE
    return SCENE_GRAPH if spec is not None and spec.backbone == SCENE_GRAPH else GEOMETRY


def _check_scenes(info: SystemInfo, run: RunFolder, scenes: pa.Table, wanted: str) -> None:
    """Raise StageError where the objects of scenes are not those whose features a model reads.

    wanted: as _described says.
    """
    sources = set(scenes["source"].to_pylist()) - {""}
    if wanted == SCENE or sources <= {wanted}:
        return
    if wanted == SCENE_GRAPH:
        remedy = f"run `{typed('scenes', run.path)}` with --graphs and --features"
    else:
        own = SCENE_VECTOR.name
        remedy = (
            f"run `{typed('extract', run.path, '--features', own)}` and train {info.name} with --features "
            f"{own}; or give features of your own to `hmnet-pipe scenes` by --features, and train it with "
            f"--features {SCENE_SET}"
        )
    raise StageError(
        f"{run.scenes} holds scenes of {' and '.join(sorted(sources))}, and {info.name} is to read features "
        f"of the objects of {wanted}; {remedy}"
    )


def _replaced(info: SystemInfo, scenes: pa.Table, run: RunFolder) -> list[str]:
    """Return what stands in for a scene-graph model and for a parser, for the system's printed name."""
    relations = "dependencies" in info.graphs or info.options.get("edges", False)
    names = {GEOMETRY: GEOMETRY if relations else "regions"}
    sources = sorted(set(scenes["source"].to_pylist()) - {""}, reverse=True)
    found = ["+".join(names.get(source, source) for source in sources)] if sources else []
    if "dependencies" in info.graphs:
        tools = read_table(run.dependencies, DEPENDENCIES, "dependencies", ["tool"])["tool"].to_pylist()
        found += [CHAIN] if CHAIN in tools else []
    return found


def open_extras(
    info: SystemInfo, run: RunFolder, options: Mapping[str, Any], reader: "TextReader", limit: int
) -> tuple["Extra", ...]:
    """Return what a model of a system with these options reads besides words and features.

    reader, limit: what reads its texts, and the most numbers that one may have. Raises StageError where a
    table is missing.
    """
    found: list[Extra] = []
    if info.objects:
        from ..text.subwords import Subwords
        from .extras import LabelText, ObjectLabels

        detections, most = read_table(run.detections, DETECTIONS, "detect"), options["objects"]
        if options.get("labels_as_text"):
            assert isinstance(reader, Subwords)
            found.append(LabelText(detections, reader, most=most, limit=limit))
        else:
            images = read_table(run.images, IMAGES, "prepare", ["key", "width", "height"]).to_pylist()
            sizes = {row["key"]: (row["width"], row["height"]) for row in images}
            found.append(ObjectLabels(detections, sizes, options["object_labels"], most))
    if "scenes" in info.graphs:
        from .graphs import SceneObjects, Structure

        scenes, most = read_table(run.scenes, SCENES, "scenes"), options["objects"]
        _check_scenes(info, run, scenes, options["scene"])
        found.append(SceneObjects(scenes, options["object_labels"], options["predicates"], most))
        if "dependencies" in info.graphs:
            dependencies = read_table(run.dependencies, DEPENDENCIES, "dependencies")
            found.append(Structure(scenes, dependencies, most, options.get("structural", "")))
    return tuple(found)
