"""What the images of posts become: what the stages of a model's own run made of its training's images.

They are the same stages, in a run of the posts' own. So a post is seen as a sample of that run would be.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.spec import FeatureSpec
from ...manifests.errors import InputError, StageError, WeightsError
from ...manifests.files import make_folder
from ...manifests.fingerprint import digest_json
from ...manifests.run import SCENE_SET, RunFolder
from ...manifests.schemas import DETECTIONS, DONE, IMAGES, MISSED, OUTCOMES, SAMPLES
from ...manifests.tables import any_usable, read_batches, table_of, write_table
from ...stages.base.settings import split_hub
from ...stages.base.stage import Stage
from ...stages.base.tools import SILENT, Tools
from ...stages.dependencies.settings import CONLLU
from ...stages.learning.batches import Visuals
from ...stages.learning.extras import Extra
from ...stages.learning.inputs import open_extras
from ...stages.learning.made_by import CONFIG, made_differently
from ...stages.learning.opened import OpenModel, open_visuals
from ...stages.predict.results import MISSING, UNREADABLE, PostImage
from ...stages.systems.registry import SystemInfo, system_info
from ...stages.vision.outcomes import Failure
from ...stages.vision.pixels import Pixels
from ...stages.vision.sets import FeatureSet
from ..run.config import RunConfig
from ..run.graph import SETTINGS, build_stage, view_source
from ..run.runner import run_stage

__all__ = ["ImageRun", "NoImages", "unseen"]

_SET = "posts"  # the feature set in a run of posts

# The setting that names the weights of each stage, and what they are of.
_WEIGHTS = {
    "detect": ("weights", "detector"),
    "extract": ("weights", "backbone"),
    "dependencies": ("model", "parser"),
}

# The stages of which a run has one for each feature set.
_SETS = frozenset({"extract"})

# The stages that read the texts of posts, and nothing of their images.
_OF_TEXTS = frozenset({"dependencies"})


def _remedy(name: str) -> str:
    """Return what to do where the weights of a detector, a backbone or a parser are others."""
    if name == "parser":
        return "install the model of the parser that it was made with"
    return f"give the file or the folder of its weights with --{name}-weights"


class NoImages:
    """Visuals (stages.learning.batches) of posts of which none has an image. shape: of an image's views."""

    def __init__(self, shape: Sequence[int], dtype: type[np.generic]) -> None:
        self._shape, self._dtype = tuple(shape), dtype

    def __contains__(self, key: object) -> bool:
        return False

    def gather(self, keys: Sequence[str | None]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        shape = (len(keys), *self._shape)
        return np.zeros(shape, self._dtype), np.zeros(shape[:2], np.bool_)


@dataclass(frozen=True)
class ImageRun:
    """A run of posts, in which their images become what one model reads.

    weights: files to be used in the place of those that the model was made with: those of its "detector",
    "backbone" and "parser"; and the file of "boxes" that another detector found in these images.
    device: where the networks compute.
    """

    run: RunFolder
    model: OpenModel
    weights: Mapping[str, str]
    device: str = "auto"

    @property
    def info(self) -> SystemInfo:
        return system_info(self.model.config.system)

    @cached_property
    def spec(self) -> FeatureSpec | None:
        """Return what the features are that the model reads, or None where it reads none."""
        features = self.model.config.features
        return None if features is None else FeatureSpec.from_json(features)

    @property
    def identity(self) -> str:
        """Return a name that two models share where their images become the same."""
        made = {kind: self.model.config.made_by.get(kind) for kind in self._kinds()}
        features, weights = self.model.config.features, dict(self.weights)
        return digest_json([made, features, self.model.from_pixels, weights])[:12]

    def check(self) -> None:
        """Raise InputError where the model cannot be used on posts, with the remedy."""
        folder, config = self.model.folder, self.model.config
        if not self.info.is_visual and not self.info.graphs:
            return
        if (self.spec is not None and self.spec.backbone == SCENE_SET) or self._given("scenes").get("graphs"):
            raise InputError(
                f"{folder} was trained on scene graphs of yours, and new posts have none; train "
                f"{self.info.name} on the scenes of `hmnet-pipe scenes` without --graphs to use it on posts"
            )
        if self._given("detect").get("boxes") and not self._boxes:
            raise InputError(
                f"{folder} was trained on boxes of a file that another detector made, and nothing here can "
                "find such boxes in new posts; use `hmnet-pipe predict --boxes FILE` with the ones that it "
                f"finds, or train {self.info.name} after `hmnet-pipe detect --detector`, which finds its own"
            )
        if self._boxes and not self._given("detect").get("boxes"):
            raise InputError(
                f"{folder} was trained on objects that {self._given('detect').get('detector')} found, which "
                "finds those of posts too; leave --boxes out"
            )
        if self._given("dependencies").get("parser") == CONLLU:
            raise InputError(
                f"{folder} was trained on trees from a file, and new posts have none; train {self.info.name} "
                "with a parser, `hmnet-pipe dependencies --parser`, to use it on posts"
            )
        if missing := [kind for kind in self._kinds() if kind not in config.made_by]:
            raise InputError(
                f"{folder / 'config.json'} does not say how {' and '.join(missing)} made what the model "
                "reads: the model was trained before that was kept; train it again"
            )

    @property
    def _boxes(self) -> str:
        return self.weights.get("boxes", "")

    def _kinds(self) -> list[str]:
        """Return the stages that make what the model reads, in their order."""
        return [
            *(["detect"] if self.info.is_visual else []),
            *self.info.graphs,
            *(["extract"] if self.spec is not None else []),
        ]

    def _given(self, kind: str) -> dict[str, Any]:
        """Return the settings of a stage of the model's run."""
        settings: dict[str, Any] = self.model.config.made_by.get(kind, {}).get("settings", {})
        return settings

    @cached_property
    def _config(self) -> RunConfig:
        """Return the configuration of the run: the settings that what the model reads was made with."""
        tables: dict[str, Any] = {}
        for kind in self._kinds():
            known = {each.name for each in fields(SETTINGS[kind])}
            given = {name: value for name, value in self._given(kind).items() if name in known}
            name, of = _WEIGHTS.get(kind, ("", ""))
            own = {
                "device": self.device,
                "crops": False,
                # Posts have few images beside a corpus: no worker shall wait for another's last unit.
                "chunk": 8,
                "shard_rows": 64,
                # The names of posts' images are those of files; ids of COCO's annotations were the corpus's.
                "boxes": self._boxes,
                "annotations": "",
                **({name: self.weights.get(of) or None} if name else {}),
            }
            tables[kind] = given | {
                name: value for name, value in own.items() if name in known and value is not None
            }
        if self.spec is not None:
            of_set = FeatureSet(_SET, self.spec.numbers, self.spec.pooled, self.spec.regions)
            tables["features"] = {_SET: of_set.to_table()}
        values = {"task": self.model.config.task, "prepare": {"text": "."}, **tables}
        return RunConfig.of_values(values, self.model.folder / CONFIG)

    def make_images(self, images: Sequence[Mapping[str, Any]], tools: Tools) -> None:
        """Bring to date what the model reads of these images, rows of IMAGES.

        An image that a network cannot take, or that is gone, costs itself, also where it is the only one.
        Raises WeightsError where weights are not those that the model was made with.
        """
        if not self._kinds():
            return
        make_folder(self.run.path / "stages")
        write_table(self.run.images, table_of(IMAGES, images))
        write_table(self.run.samples, table_of(SAMPLES, ()))
        kinds = [kind for kind in self._kinds() if kind not in _OF_TEXTS]
        if self.spec is not None and (self.model.from_pixels or not any_usable(self.run.images)):
            kinds.remove("extract")
        self._bring_to_date(kinds, tools)

    def with_texts(
        self, folder: Path, samples: Sequence[Mapping[str, Any]], tools: Tools = SILENT
    ) -> "ImageRun":
        """Return the run with what the model reads of the texts of posts, rows of SAMPLES, besides words.

        It lies below `folder` and shares the images' tables; it is this run where the model reads nothing.
        """
        kinds = [kind for kind in self._kinds() if kind in _OF_TEXTS]
        if not kinds:
            return self
        own = replace(self, run=RunFolder(folder / self.identity))
        if not own.run.path.exists():  # or it is that of another model, which reads the same
            make_folder(own.run.path / "stages")
            for place in (*self.run.path.glob("*"), *(self.run.path / "stages").glob("*.parquet")):
                if place not in (self.run.path / "stages", self.run.samples):
                    (own.run.path / place.relative_to(self.run.path)).symlink_to(place.resolve())
        write_table(own.run.samples, table_of(SAMPLES, samples))
        own._bring_to_date(kinds, tools)
        return own

    def _bring_to_date(self, kinds: Sequence[str], tools: Tools) -> None:
        for kind in kinds:
            stage = build_stage(self._config, self.run, kind, _SET if kind in _SETS else None)
            stage = stage.with_carried(self.model.config.made_by[kind].get("carried", {}))
            self._check(kind, stage, tools)
            run_stage(stage, replace(tools, all_may_fail=True))

    def _check(self, kind: str, stage: Stage, tools: Tools) -> None:
        """Compare how a stage works here with how it worked for the model.

        Features are compared where they are opened.
        """
        key, name = _WEIGHTS.get(kind, ("", ""))
        try:
            causes = stage.causes(tools)
        except InputError as error:
            given = self._given(kind)
            file = self.weights.get(name) or given.get(key)
            before, place = split_hub(str(given.get(name, "")))
            if before and file == "default":  # the folder of an outside network holds its own weights
                file = place
            if not file or Path(file).exists() or self._boxes:
                raise
            raise WeightsError(
                f"{file} is not there, and {self.model.folder} was made with the {name} of these weights; "
                f"{_remedy(name)}"
            ) from error
        decides, rounds = made_differently(self.model.config.made_by[kind], causes)
        if weights := [change for change in decides if change.startswith("weights.")]:
            raise WeightsError(
                f"the {name} that {self.model.folder} was made with had other weights ({weights[0]}), from "
                f"{self._given(kind).get(key, '')!r}; {_remedy(name)}"
            )
        if decides:
            raise StageError(
                f"{kind} would work otherwise than for {self.model.folder} ({'; '.join(decides)}); use the "
                "version of hmnet-pipe that trained it, or train it again"
            )
        if rounds:
            tools.say(f"note: {kind} rounds otherwise here than for the model ({'; '.join(rounds)})")

    def open(self) -> tuple[Visuals | None, tuple[Extra, ...]]:
        """Return the images as the model reads them, and what else it reads of a post."""
        config = self.model.config
        visuals: Visuals | None = None
        if self.spec is not None and not any_usable(self.run.images):
            visuals = self._nothing()
        elif self.spec is not None and self.model.from_pixels:
            # It brings its backbone: where the weights lie that this was before is of no matter.
            images = view_source(self._config, self.run, _SET).images()
            visuals = Pixels(
                images, transform=self.spec.transform, views=self.spec.views, decoders=2, all_may_fail=True
            )
        elif self.spec is not None:
            visuals = open_visuals(self.model, self.run, None, _SET)
        extras = open_extras(self.info, self.run, config.options, self.model.reader, config.max_length)
        return visuals, extras

    def _nothing(self) -> NoImages:
        assert self.spec is not None
        if self.model.from_pixels:
            side = self.spec.transform.size
            return NoImages((self.spec.views, side, side, 3), np.uint8)
        return NoImages(self.spec.row_shape, np.float32)

    def objects(self, keys: Sequence[str | None]) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of DETECTIONS of each of these images by its key, best first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in _rows_of(keys, self.run.detections, DETECTIONS):
            found.setdefault(row["image_key"], []).append(row)
        return found

    def failed(self, keys: Sequence[str | None]) -> dict[str, PostImage]:
        """Return what became of those of these images that were not used, by the key."""
        return {
            row["image_key"]: _failed(Failure(row["reason"], passing=row["status"] == MISSED))
            for stage in ("detect", f"extract-{_SET}")
            for row in _rows_of(keys, self.run.outcomes(stage), OUTCOMES)
            if row["status"] != DONE
        }


def unseen(visuals: Visuals | None) -> dict[str, PostImage]:
    """Return what became of the images that could not be read when a model saw their pixels, by the key."""
    failures = visuals.failures if isinstance(visuals, Pixels) else {}
    return {key: _failed(failure) for key, failure in failures.items()}


def _failed(failure: Failure) -> PostImage:
    return PostImage(MISSING if failure.passing else UNREADABLE, failure.reason)


def _rows_of(keys: Sequence[str | None], path: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table with these images, if there is one: it may be of a million others."""
    wanted = pa.array({key for key in keys if key is not None}, pa.string())
    if path.exists() and len(wanted):
        for batch in read_batches(path, schema):
            yield from batch.filter(pc.is_in(batch.column("image_key"), wanted)).to_pylist()
