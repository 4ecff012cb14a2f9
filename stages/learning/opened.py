"""A trained model as it is opened to be used, and the images that it may be given."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...cache.reader import FeatureCache
from ...cache.spec import FeatureSpec
from ...manifests.errors import InputError, StageError
from ...manifests.run import RunFolder
from ...manifests.schemas import SCENE_GRAPH
from ..base.arithmetic import resolve_device, resolve_precision
from ..systems.batch import ModelConfig
from ..systems.build import reader_of
from ..systems.end_to_end import EndToEnd
from ..systems.folder import load_system
from ..systems.registry import BACKBONE_FILE, system_info
from ..systems.system import Model
from ..text.reader import TextReader
from ..vision.pixels import Pixels
from ..vision.plan import ViewPlan
from .batches import Visuals
from .calibration import temperature_of
from .inputs import features_of
from .made_by import TRAINED

__all__ = ["OpenModel", "open_model", "open_visuals"]


@dataclass(frozen=True)
class OpenModel:
    """A model on its device, with what reads its texts and the arithmetic that it is used with.

    from_pixels: whether it has a backbone of its own, as finetune makes it.
    """

    folder: Path
    model: Model
    reader: TextReader
    precision: str
    from_pixels: bool

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @cached_property
    def temperature(self) -> float:
        """Return what the model's scores are divided by before they become probabilities."""
        return temperature_of(self.folder)


def open_model(folder: Path, *, device: str = "auto", precision: str = "auto") -> OpenModel:
    """Open the model in `folder`. Raises WeightsError where the folder does not hold one.

    precision: "auto" is that of its training where that was exact, and otherwise the device's own.
    """
    from_pixels = (folder / BACKBONE_FILE).is_file()
    model: Model = EndToEnd.from_pretrained(folder) if from_pixels else load_system(folder)
    there = resolve_device(device)
    trained = model.config.made_by.get(TRAINED, {}).get("parameters", {}).get("precision")
    exact = precision == "auto" and trained == "fp32"
    arithmetic = resolve_precision("fp32" if exact else precision, there)
    reader = reader_of(model.config, folder)
    return OpenModel(folder, model.to(there), reader, arithmetic, from_pixels)


def open_visuals(
    opened: OpenModel, data: RunFolder, plan: ViewPlan | None, feature_set: str | None
) -> Visuals | None:
    """Return the images of `data` as the model reads them, or None for a system that reads no features.

    plan: the views that extract would see of `data`, for a model that sees pixels. feature_set: the one of
    `data` that another model reads. Raises InputError where the plan is missing, and StageError where
    features were made differently from those that the model was trained on.
    """
    if not system_info(opened.config.system).is_visual:
        return None
    if opened.from_pixels:
        return _pixels(data, plan, opened.config)
    return None if feature_set is None else _features(data, feature_set, opened.config)


def _features(data: RunFolder, feature_set: str, config: ModelConfig) -> FeatureCache:
    """Return a feature set of `data`, which must have the backbone, weights and transform of the model's."""
    cache = features_of(data, feature_set)
    _check(str(data.features(feature_set)), cache.spec, config.features, ("dtype",))
    return cache


def _pixels(data: RunFolder, plan: ViewPlan | None, config: ModelConfig) -> Pixels:
    """Return the pixels of the planned views.

    Their number and size must be those that the model was trained on.
    """
    if plan is None:
        raise InputError(
            "a model that finetune made sees pixels: give the plan of its views, "
            "as the extract stage of their run makes it"
        )
    _check(
        str(data.config), plan.spec, config.features, ("dtype", "weights")
    )  # the model brings its own weights
    return Pixels(plan.images, transform=plan.spec.transform, views=plan.spec.views, decoders=2)


def _check(where: str, spec: FeatureSpec, trained_on: dict[str, Any] | None, but: Sequence[str]) -> None:
    if trained_on is None:
        return
    made, wanted = spec.to_json(), FeatureSpec.from_json(trained_on).to_json()
    for field, value in wanted.items():
        if field not in (*but, "precision", "strides") and made[field] != value:
            remedy = "extract them with the model's settings first"
            if field == "weights" and spec.backbone == SCENE_GRAPH:
                remedy = (
                    "if one tool made both, name it in each record of both files of scene graphs "
                    '(`"tool": "name version"`), run `hmnet-pipe scenes` on both, and train again'
                )
            raise StageError(
                f"the features of {where} have {field} {made[field]!r}, "
                f"and the model was trained on {value!r}; {remedy}"
            )
