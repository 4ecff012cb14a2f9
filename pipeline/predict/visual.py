"""What the images of posts become: what the stages of a model's own run made of its training's images.

They are the same stages, in a run of the posts' own. So a post is seen as a sample of that run would be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.spec import FeatureSpec
from ...manifests.errors import InputError, StageError, WeightsError
from ...manifests.files import make_folder
from ...manifests.fingerprint import digest_json
from ...manifests.run import SCENE_SET, RunFolder
from ...manifests.schemas import DETECTIONS, DONE, IMAGES, OUTCOMES, SAMPLES
from ...manifests.tables import any_usable, read_table, table_of, write_table
from ...stages.base.stage import Stage
from ...stages.base.tools import Tools
from ...stages.dependencies.settings import CONLLU
from ...stages.learning.batches import Visuals
from ...stages.learning.extras import Extra
from ...stages.learning.inputs import open_extras
from ...stages.learning.made_by import CONFIG, made_differently
from ...stages.learning.opened import OpenModel, open_visuals
from ...stages.systems.registry import SystemInfo, system_info
from ...stages.vision.sets import FeatureSet
from ..run.config import RunConfig
from ..run.graph import SETTINGS, build_stage, view_source
from ..run.runner import run_stage

__all__ = ["ImageRun", "NoImages"]

_SET = "posts"  # the feature set in a run of posts

# The setting that names the weights of each stage, and what they are of.
_WEIGHTS = {
    "detect": ("weights", "detector"),
    "extract": ("weights", "backbone"),
    "dependencies": ("model", "parser"),
}

# The stages of which a run has one for each feature set.
_SETS = frozenset({"extract"})


def _remedy(name: str) -> str:
    """Return what to do where the weights of a detector, a backbone or a parser are others."""
    if name == "parser":
        return "install the model of the parser that it was made with"
    return f"give the file of its weights with --{name}-weights"


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
    "backbone" and "parser".
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

    def make(
        self, images: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]], tools: Tools
    ) -> None:
        """Bring to date what the model reads of these images (rows of IMAGES) and posts (rows of SAMPLES).

        An image that a network cannot take costs itself, also where it is the only one. Raises WeightsError
        where weights are not those that the model was made with.
        """
        make_folder(self.run.path / "stages")
        for path, schema, rows in ((self.run.images, IMAGES, images), (self.run.samples, SAMPLES, samples)):
            write_table(path, table_of(schema, rows))
        kinds = self._kinds()
        if self.spec is not None and (self.model.from_pixels or not any_usable(self.run.images)):
            kinds.remove("extract")
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
            file = self.weights.get(name) or self._given(kind).get(key)
            if not file or Path(file).exists():
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

    def open(self, tools: Tools) -> tuple[Visuals | None, tuple[Extra, ...]]:
        """Return the images as the model reads them, and what else it reads of a post."""
        config = self.model.config
        visuals: Visuals | None = None
        if self.spec is not None and not any_usable(self.run.images):
            visuals = self._nothing()
        elif self.info.is_visual:
            plan = None
            if self.model.from_pixels:
                plan = view_source(self._config, self.run, _SET).plan()
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
        found: dict[str, str] = {}
        for stage in ("detect", f"extract-{_SET}"):
            path = self.run.outcomes(stage)
            if path.exists():
                rows = read_table(path, OUTCOMES).to_pylist()
                found |= {row["image_key"]: row["reason"] for row in rows if row["status"] != DONE}
        return found
