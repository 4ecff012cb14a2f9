"""What the images of posts become: what the stages of a model's own run made of its training's images.

They are the same stages, in a run of the posts' own. So a post is seen as a sample of that run would be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.spec import FeatureSpec
from ...manifests.errors import InputError, StageError, WeightsError
from ...manifests.files import make_folder
from ...manifests.fingerprint import digest_json
from ...manifests.run import SCENE_SET, RunFolder
from ...manifests.schemas import DETECTIONS, IMAGES, SAMPLES
from ...manifests.tables import any_usable, read_table, table_of, write_table
from ...stages.base.stage import Stage
from ...stages.base.tools import Tools
from ...stages.dependencies.settings import CONLLU, DependencySettings
from ...stages.dependencies.stage import Dependencies
from ...stages.detect.settings import DetectSettings
from ...stages.detect.stage import Detect
from ...stages.extract.settings import ExtractSettings
from ...stages.extract.stage import Extract
from ...stages.learning.batches import Visuals
from ...stages.learning.extras import Extra
from ...stages.learning.inputs import open_extras
from ...stages.learning.made_by import made_differently
from ...stages.learning.opened import OpenModel, open_visuals
from ...stages.scenes.settings import SceneSettings
from ...stages.scenes.stage import Scenes
from ...stages.systems.registry import SystemInfo, system_info
from ...stages.vision.sets import FeatureSet
from ..run.runner import run_stage

__all__ = ["ImageRun", "NoImages"]

_SET = "posts"  # the feature set in a run of posts

_SETTINGS: dict[str, type[Any]] = {
    "detect": DetectSettings,
    "extract": ExtractSettings,
    "scenes": SceneSettings,
    "dependencies": DependencySettings,
}


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

    weights: files to be used in the place of those that the model was made with, "detector" and "backbone".
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
        made = {kind: value for kind, value in self.model.config.made_by.items() if kind in _SETTINGS}
        features, weights = self.model.config.features, dict(self.weights)
        return digest_json([made, features, self.model.from_pixels, weights])[:12]

    def check(self) -> None:
        """Raise InputError where the model cannot be used on posts, with the remedy."""
        folder, config = self.model.folder, self.model.config
        if not self.info.is_visual and not self.info.graphs:
            return
        needed = self._kinds()
        if missing := [kind for kind in needed if kind not in config.made_by]:
            raise InputError(
                f"{folder / 'config.json'} does not say how {' and '.join(missing)} made what the model "
                "reads: the model was trained before that was kept; train it again"
            )
        if (self.spec is not None and self.spec.backbone == SCENE_SET) or self._given("scenes").get("graphs"):
            raise InputError(
                f"{folder} was trained on scene graphs of yours, and new posts have none; train "
                f"{self.info.name} on the scenes of `hmnet-pipe scenes` without --graphs to use it on posts"
            )
        if self._given("dependencies").get("parser") == CONLLU:
            raise InputError(
                f"{folder} was trained on trees from a file, and new posts have none; train {self.info.name} "
                "with a parser, `hmnet-pipe dependencies --parser`, to use it on posts"
            )

    def _kinds(self) -> list[str]:
        """Return the stages that make what the model reads, in their order."""
        visual = self.info.is_visual
        return [
            *(["detect"] if visual else []),
            *(kind for kind in ("scenes", "dependencies") if kind in self.info.graphs),
            *(["extract"] if self.spec is not None else []),
        ]

    def _given(self, kind: str) -> dict[str, Any]:
        settings: dict[str, Any] = self.model.config.made_by.get(kind, {}).get("settings", {})
        return settings

    def make(
        self, images: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]], tools: Tools
    ) -> None:
        """Bring to date what the model reads of these images (rows of IMAGES) and posts (rows of SAMPLES).

        Raises WeightsError where weights are not those that the model was made with.
        """
        make_folder(self.run.path / "stages")
        for path, schema, rows in ((self.run.images, IMAGES, images), (self.run.samples, SAMPLES, samples)):
            write_table(path, table_of(schema, rows))
        for kind in self._kinds():
            stage = self._stage(kind)
            if kind == "extract" and (self.model.from_pixels or not any_usable(self.run.images)):
                continue
            self._check(kind, stage, tools)
            run_stage(stage, tools)

    def _stage(self, kind: str) -> Stage:
        """Return a stage of the run, with the settings that the model's was made with."""
        known = {each.name for each in fields(_SETTINGS[kind])}
        given = {name: value for name, value in self._given(kind).items() if name in known}
        weights = {"detect": "detector", "extract": "backbone"}.get(kind, "")
        if self.weights.get(weights):
            given["weights"] = self.weights[weights]
        if "device" in known:
            given["device"] = self.device
        if kind == "detect":
            return Detect(self.run, DetectSettings(**{**given, "crops": False}))
        if kind == "extract":
            return self._extract(ExtractSettings(**given))
        if kind == "scenes":
            carried = self.model.config.made_by[kind].get("carried", {}).get("associated", [])
            associated = {(one, other): value for one, other, value in carried}
            return Scenes(self.run, SceneSettings(**given), associated)
        return Dependencies(self.run, DependencySettings(**given))

    def _extract(self, settings: ExtractSettings) -> Extract:
        assert self.spec is not None
        spec = self.spec
        objects = self._given("detect").get("objects", 0)
        return Extract(self.run, settings, objects, FeatureSet(_SET, spec.numbers, spec.pooled, spec.regions))

    def _check(self, kind: str, stage: Stage, tools: Tools) -> None:
        """Compare how a stage works here with how it worked for the model.

        Features are compared where they are opened.
        """
        if not any_usable(self.run.images) and kind in ("detect", "extract"):
            return
        causes = stage.causes(tools)
        decides, rounds = made_differently(self.model.config.made_by[kind], causes)
        if kind == "extract":  # the set has another name and other facts here
            decides = [change for change in decides if change.startswith("weights.")]
        name = {"detect": "detector", "extract": "backbone"}.get(kind, "parser")
        if weights := [change for change in decides if change.startswith("weights.")]:
            source = self._given(kind).get("weights", self._given(kind).get("model", ""))
            remedy = (
                f"give the file with --{name}-weights"
                if name != "parser"
                else "install that model of the parser"
            )
            raise WeightsError(
                f"the {name} that {self.model.folder} was made with had other weights ({weights[0]}), "
                f"from {source!r}; {remedy}"
            )
        if decides:
            raise StageError(
                f"{kind} would work otherwise than for {self.model.folder} ({'; '.join(decides)}); use the "
                "version of hmnet-pipe that trained it, or train it again"
            )
        if rounds:
            tools.say(f"note: {kind} rounds otherwise here than for the model ({'; '.join(rounds)})")

    def open(self, tools: Tools) -> tuple[Visuals | None, tuple[Extra, ...]]:
        """Return the images as the model reads them, and what else it reads of a post."""
        config = self.model.config
        visuals: Visuals | None = None
        if self.spec is not None and not any_usable(self.run.images):
            visuals = self._nothing()
        elif self.info.is_visual:
            plan = None
            if self.model.from_pixels:
                stage = self._stage("extract")
                assert isinstance(stage, Extract)
                plan = stage.plan()
            visuals = open_visuals(self.model, self.run, plan, _SET if self.spec is not None else None, tools)
        extras = open_extras(self.info, self.run, config.options, self.model.reader, config.max_length)
        return visuals, extras

    def _nothing(self) -> NoImages:
        assert self.spec is not None
        if self.model.from_pixels:
            side = self.spec.transform.size
            return NoImages((self.spec.views, side, side, 3), np.uint8)
        return NoImages(self.spec.row_shape, np.float32)

    def objects(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of DETECTIONS of each image by its key, best first."""
        found: dict[str, list[dict[str, Any]]] = {}
        if self.run.detections.exists():
            for row in read_table(self.run.detections, DETECTIONS).to_pylist():
                found.setdefault(row["image_key"], []).append(row)
        return found

    def failed(self) -> dict[str, str]:
        """Return why an image was not used although it could be read, by its key."""
        from ...manifests.schemas import DONE, OUTCOMES

        found: dict[str, str] = {}
        for stage in ("detect", f"extract-{_SET}"):
            path = self.run.outcomes(stage)
            if path.exists():
                rows = read_table(path, OUTCOMES).to_pylist()
                found |= {row["image_key"]: row["reason"] for row in rows if row["status"] != DONE}
        return found
