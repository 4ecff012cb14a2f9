"""The scenes stage: the objects of every image and the relations between them, as rows of a table.

They are those of the user's scene graphs, or what the boxes of the detections and the labels that go together
say.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...cache.integrity import find_damage
from ...cache.reader import FeatureCache
from ...manifests.errors import InputError, StageError
from ...manifests.files import reason_of, remove_temporaries
from ...manifests.fingerprint import digest_file
from ...manifests.record import StageRecord
from ...manifests.run import SCENE_SET, RunFolder
from ...manifests.schemas import DETECTIONS, IMAGES, PROBLEMS, SAMPLES, SCENES
from ...manifests.tables import (
    read_batches,
    read_table,
    sound_digests,
    table_digest,
    table_of,
    usable_images,
    write_table,
)
from ..base.tools import SILENT, Counts, Tools
from ..base.whole import WholeStage
from ..vision.known import BadRecord, KnownImages
from .benchmark import INFO
from .features import ObjectFeatures, open_features, write_features
from .geometry import Association, association, geometric_scene
from .records import read_records, scene_of
from .scene import EMPTY_SCENE, Scene, Thing
from .settings import FILLED, SceneSettings

__all__ = ["Scenes", "graph_digest"]

_ROWS = 2**12  # rows that are held as Python's objects at a time

# What decides the relations of the detections alone.
_GEOMETRIC = ("inside", "overlap", "near", "cooccurrence", "edges")


@dataclass(frozen=True)
class Scenes(WholeStage):
    """From detections.parquet, or the user's scene graphs, to scenes.parquet. See Stage for the contract.

    associated: which labels go together, for images of posts; None: what the training images say.
    """

    run: RunFolder
    settings: SceneSettings
    associated: Association | None = None

    kind = "scenes"
    files = ("scenes", "problems")
    schema_version = 1

    def parameters(self) -> dict[str, Any]:
        s = self.settings
        geometric = {name: getattr(s, name) for name in _GEOMETRIC} if self._detections_count else {}
        return {"objects": s.objects, **geometric, **({"missing": s.missing} if s.graphs else {})}

    @property
    def _detections_count(self) -> bool:
        return not self.settings.graphs or self.settings.missing == FILLED

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        found = {
            "samples": table_digest(self.run.samples, SAMPLES, "prepare"),
            "images": table_digest(self.run.images, IMAGES, "prepare"),
        }
        if self._detections_count:
            found["detections"] = table_digest(self.run.detections, DETECTIONS, "detect")
        return found | {name: graph_digest(self.settings, name) for name in _files(self.settings)}

    def outputs(self) -> dict[str, str]:
        found = sound_digests(
            {"scenes": (self.run.scenes, SCENES), "problems": (self.output_path("problems"), PROBLEMS)}
        )
        if self.settings.features:
            try:
                cache = FeatureCache(self.run.features(SCENE_SET))
                cache.check()
                found["features"] = cache.digest()
            except StageError:  # missing or damaged
                return found
        return found

    def damage(self) -> list[tuple[Path, str]]:
        features = self.run.features(SCENE_SET)
        return [(item.path, item.reason) for item in find_damage(features)] if self.settings.features else []

    def output_path(self, output: str) -> Path:
        places = {"scenes": self.run.scenes, "features": self.run.features(SCENE_SET)}
        return places.get(output, self.run.outcomes(self.name))

    @property
    def place(self) -> Path:
        return self.run.scenes

    def before(self) -> tuple[str, ...]:
        return ("prepare", "detect") if self._detections_count else ("prepare",)

    def tables(self) -> tuple[Path, ...]:
        return (self.run.samples, self.run.images, self.run.detections)

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        remove_temporaries(self.run.path, self.run.scenes.name)
        images = [row for row in read_table(self.run.images, IMAGES).to_pylist() if row["status"] == "ok"]
        if not self.settings.features:
            given, problems, _ = self._given(images, None)
            shutil.rmtree(self.run.features(SCENE_SET), ignore_errors=True)
        else:
            with open_features(_files(self.settings)["features"]) as features:
                given, problems, tools_of = self._given(images, features)
                # Two files of one tool hold features of one kind; of unknown tools, only one file does.
                made_by = " + ".join(sorted(tools_of)) if all(tools_of) else causes.inputs["features"]
                place, most = self.run.features(SCENE_SET), self.settings.objects
                write_features(place, features, given, most, made_by)
        seen = Counter[str]()
        objects = relations = 0
        parts, rows_of_part = [], []
        for key, scene in self._scenes([row["key"] for row in images], given):
            seen[scene.source] += 1
            objects, relations = objects + len(scene.things), relations + len(scene.relations)
            rows_of_part.append(scene.row(key))
            if len(rows_of_part) == _ROWS:
                parts.append(table_of(SCENES, rows_of_part))
                rows_of_part = []
        write_table(self.output_path("problems"), table_of(PROBLEMS, problems))
        write_table(self.run.scenes, pa.concat_tables([*parts, table_of(SCENES, rows_of_part)]))
        with_graph = len(images) - seen[""]
        if self.settings.graphs and with_graph < len(images):
            tools.say(
                f"note: {len(images) - with_graph} of {len(images)} images have no scene graph; "
                "their scenes are empty"
            )
        return Counts(
            "images",
            done=with_graph,
            failed=len(problems),
            details={
                "images by source": {source or "no graph": number for source, number in sorted(seen.items())},
                "objects": objects,
                "relations": relations,
                "failures": str(self.output_path("problems")) if problems else None,
            },
        )

    def _given(
        self, images: list[dict[str, Any]], features: ObjectFeatures | None
    ) -> tuple[dict[str, Scene], list[dict[str, Any]], set[str]]:
        """Return the user's scenes by image key, a row of PROBLEMS for each record that is none, and tools.

        The tools are those that made the scenes; "" is among them where a record does not say.
        """
        if not self.settings.graphs:
            return {}, [], set()
        samples = read_table(self.run.samples, SAMPLES, columns=["image", "image_key"]).to_pylist()
        known = KnownImages.of(images, samples)
        scenes: dict[str, Scene] = {}
        problems: list[dict[str, Any]] = []
        places: dict[str, str] = {}
        made_by: set[str] = set()
        path = _files(self.settings)["graphs"]
        for record in read_records(path, known):
            try:
                key, scene = scene_of(record, known, features, self.settings.objects)
                if key in places:
                    raise BadRecord(f"the image already has a graph, that of {places[key]}")
            except BadRecord as error:
                named = {"kind": "scene", "sample": record.image, "where": record.where}
                problems.append({**named, "reason": str(error)})
            else:
                places[key], scenes[key] = record.where, scene
                made_by.add(record.tool)
        if not scenes:
            why = problems[0]["where"] + ": " + problems[0]["reason"] if problems else "it holds no record"
            raise InputError(f"{path} has no scene graph for any of the {len(images)} images ({why})")
        return scenes, problems, made_by

    def _scenes(self, keys: list[str], given: Mapping[str, Scene]) -> Iterator[tuple[str, Scene]]:
        """Yield the scene of every usable image, in the order of the keys."""
        if not self._detections_count:
            yield from ((key, given.get(key, EMPTY_SCENE)) for key in keys)
            return
        associated = self._associated(keys) if self.associated is None else self.associated
        for key, things in self._detected(keys):
            yield key, given.get(key) or geometric_scene(things, associated, self.settings)

    def _associated(self, keys: list[str]) -> dict[tuple[str, str], float]:
        """Return which labels go together in the images of the training split."""
        samples = read_table(self.run.samples, SAMPLES, columns=["split", "image_key"]).to_pylist()
        training = {row["image_key"] for row in samples if row["split"] == "train"}
        return association(
            [thing.label for thing in things[: self.settings.objects]]
            for key, things in self._detected(keys)
            if key in training
        )

    def carried(self) -> dict[str, Any]:
        if not self._detections_count:
            return {}
        keys = usable_images(self.run.images).column("key").to_pylist()
        return {"associated": [[*pair, value] for pair, value in sorted(self._associated(keys).items())]}

    def with_carried(self, carried: Mapping[str, Any]) -> "Scenes":
        return replace(self, associated={(a, b): value for a, b, value in carried.get("associated", ())})

    def _detected(self, keys: list[str]) -> Iterator[tuple[str, list[Thing]]]:
        """Yield the detections of every usable image, best first, in the order of the keys."""
        rows = read_table(self.run.images, IMAGES, columns=["key", "width", "height"]).to_pylist()
        sizes = {row["key"]: (row["width"], row["height"]) for row in rows}
        found = groupby(_rows(self.run.detections), key=lambda row: str(row["image_key"]))
        key, boxes = next(found, ("", iter(())))
        for wanted in keys:
            while key and key < wanted:  # of an image that prepare no longer lists
                key, boxes = next(found, ("", iter(())))
            own = list(boxes) if key == wanted else []
            if key == wanted:
                key, boxes = next(found, ("", iter(())))
            width, height = sizes[wanted]
            yield (
                wanted,
                [
                    Thing(
                        (row["x0"] / width, row["y0"] / height, row["x1"] / width, row["y1"] / height),
                        row["label"],
                        row["score"],
                    )
                    for row in own
                ],
            )


def _rows(detections: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of detections.parquet, which are in the order of image and rank."""
    for batch in read_batches(detections, DETECTIONS, "detect"):
        yield from batch.to_pylist()


def _files(settings: SceneSettings) -> dict[str, Path]:
    """Return the user's files that the stage reads, by the names of their options."""
    given = {"graphs": settings.graphs, "features": settings.features}
    named = {name: Path(value).expanduser() for name, value in given.items() if value}
    if settings.graphs.endswith(".json"):
        named["labels"] = named["graphs"].with_name(INFO)
    return named


def graph_digest(settings: SceneSettings, name: str) -> str:
    """Return the digest of one of the user's files that the stage reads: graphs, features or labels.

    Raises InputError where it cannot be read.
    """
    path = _files(settings)[name]
    try:
        return digest_file(path)
    except OSError as error:
        where = "beside the file of --graphs" if name == "labels" else f"--{name}"
        raise InputError(f"{path} ({where}) cannot be read: {reason_of(error)}") from error
