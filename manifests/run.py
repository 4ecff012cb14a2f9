"""Where everything lies in a run's folder, and the record that each stage leaves there."""

import os
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .files import is_utf8
from .trial import Trial

__all__ = ["DEFAULT_SET", "SCENE_SET", "RunFolder", "extract_name"]

DEFAULT_SET = "pyramid"
"""The feature set that is made where none is named."""

SCENE_SET = "scenes"
"""The feature set of the objects of the user's scene graphs, which the scenes stage makes."""


def extract_name(feature_set: str = DEFAULT_SET) -> str:
    """Return the name of the stage that makes a feature set."""
    if feature_set == SCENE_SET:
        return "scenes"
    return "extract" if feature_set == DEFAULT_SET else f"extract-{feature_set}"


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run; creating the object touches nothing on disk."""

    path: Path

    def check_folders(self) -> None:
        """Raise InputError where something that is no folder has the name of one of the run's folders.

        So too where the run's own name is not UTF-8, which no table could be written under.
        """
        if not is_utf8(name := os.fspath(self.path)):
            raise InputError(f"the name of the run is not UTF-8: {name!r}; rename the folder")
        for name in ("stages", "features", "models", "crops", "logs", "refreshed", "scored"):
            place = self.path / name
            if os.path.lexists(place) and not place.is_dir():
                raise InputError(
                    f"{place} is not a folder, and a run keeps its {name} in the folder of this name; "
                    "move it away or remove it"
                )

    @property
    def config(self) -> Path:
        return self.path / "run.toml"

    @property
    def samples(self) -> Path:
        return self.path / "samples.parquet"

    @property
    def images(self) -> Path:
        return self.path / "images.parquet"

    @property
    def problems(self) -> Path:
        return self.path / "problems.parquet"

    @property
    def mention_boxes(self) -> Path:
        return self.path / "mention_boxes.parquet"

    @property
    def detections(self) -> Path:
        return self.path / "detections.parquet"

    @property
    def scenes(self) -> Path:
        return self.path / "scenes.parquet"

    @property
    def dependencies(self) -> Path:
        return self.path / "dependencies.parquet"

    @property
    def crops(self) -> Path:
        return self.path / "crops"

    def features(self, feature_set: str = DEFAULT_SET) -> Path:
        """Return the cache of one feature set."""
        return self.path / "features" / feature_set

    def outcomes(self, stage: str) -> Path:
        """Return the table (manifests.schemas.OUTCOMES) of what a visual stage did with each image."""
        return self.path / "stages" / f"{stage}.parquet"

    def work(self, stage: str) -> Path:
        """Return the folder of a stage's finished parts.

        A resumed stage reads them; a finished one removes them.
        """
        return self.path / "stages" / f"{stage}.parts"

    def record(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"

    def lock(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.lock"

    @property
    def models(self) -> Path:
        return self.path / "models"

    def model(self, trial: Trial) -> Path:
        return self.models / trial.system / trial.label

    def scored(self, name: str, seed: int) -> Path:
        """Return the folder of the scores of predictions that were given (`hmnet-pipe score`)."""
        return self.path / "scored" / name / f"seed-{seed}"

    def finetuned(self, trial: Trial) -> Path:
        """Return the folder of the model that finetune made, with its backbone."""
        return self.models / trial.system / f"finetuned-{trial.label}"

    def refreshed(self, trial: Trial) -> Path:
        """Return the folder of a run of its own on the features of a fine-tuned backbone."""
        return self.path / "refreshed" / trial.name

    def logs(self, stage: str) -> Path:
        """Return the folder of TensorBoard's files of one training."""
        return self.path / "logs" / stage
