"""What every stage that trains one trial has in common. Importing this needs no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...manifests.files import check_folder
from ...manifests.record import StageRecord
from ...manifests.trial import Trial
from ..base.stage import Progress, Rerun, Stage
from ..base.tools import Tools
from ..systems.registry import SUBWORDS, SystemInfo, system_for
from ..text.encoders.files import resolve_encoder
from .causes import checkpoint_folder, compare_models, model_scores, recipe_parameters, training_progress
from .made_by import made_by
from .negative import negative_of
from .recipe import Recipes, TrainingJob, TrainSettings

__all__ = ["Training"]


class Training(Stage):
    """A stage that trains one trial of a run into a model's folder, `place`.

    settings: the table [train]. negative: the negative relation as [prepare] names it; "": the one that is
    recognised. recipes: the tables [recipes.NAME], by name.
    """

    settings: TrainSettings
    task: str
    trial: Trial
    negative: str
    recipes: Recipes

    repeats_whole = True

    @property
    def recipe(self) -> TrainSettings:
        """Return how the trial is trained: by [train], by a recipe of the run's, or as published."""
        return self.settings.of(self.trial, self.task, self.recipes)

    @property
    def schema_version(self) -> int:
        return self.info.version

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.trial.name}"

    @property
    def info(self) -> SystemInfo:
        """Return the facts of the system. Raises InputError for one of the other task, or an unknown one."""
        return system_for(self.trial.system, self.task)

    @property
    def feature_set(self) -> str | None:
        """Return the name of the feature set that the system reads, or None."""
        return self.info.feature_set(self.trial.features)

    def command(self) -> str:
        return f"{super().command()} {self.trial.options}"

    def recipe_parameters(self, recipe: TrainSettings) -> dict[str, Any]:
        """Return what decides the model: of `recipe`, the trial, and the data's negative relation."""
        record = StageRecord.known(self.run.record(self.name))
        negative = negative_of(self.run.samples, self.negative) if self.task == "re" else None
        return recipe_parameters(recipe, self.trial, record, negative, self.task)

    def job(
        self, recipe: TrainSettings, rates: Mapping[str, float], causes: StageRecord, tools: Tools
    ) -> TrainingJob:
        """Return the training in plain facts. rates: the learning rate of each part of the model.

        Raises StageError where the folder of the model could not be made in the end.
        """
        check_folder(self.place)
        return TrainingJob(
            name=self.name,
            title=f"{self.kind} {self.trial.title}",
            command=super().command(),
            task=self.task,
            trial=self.trial,
            recipe=recipe,
            rates=rates,
            encoder=resolve_encoder(self.settings.encoder) if self.info.text == SUBWORDS else None,
            samples=self.run.samples,
            negative=self.negative,
            config=self.run.config,
            folder=self.place,
            checkpoints=self._checkpoints(causes),
            logs=self.run.logs(self.name) if self.settings.tensorboard else None,
            checkpoint_seconds=tools.checkpoint_seconds,
            made_by=self.made_by(),
        )

    def made_by(self) -> dict[str, Any]:
        """Return how each stage made what the model will read."""
        detect = ("detect",) if self.info.is_visual else ()
        return made_by(self.run, dict.fromkeys((*detect, *self.before())))

    def _checkpoints(self, causes: StageRecord) -> Path:
        return checkpoint_folder(self.run.work(self.name), causes)

    def progress(self, causes: StageRecord) -> Progress | None:
        return training_progress(self._checkpoints(causes))

    def scores(self) -> dict[str, Any] | None:
        return model_scores(self.place, self.trial)

    def rerun(self, again: "Training", record: StageRecord, elsewhere: bool, tools: Tools) -> Rerun:
        """Train `again`, this stage in another run, and compare its model with that of `record`."""
        again.compute(again.causes(tools), tools)
        return compare_models(record, self.place, again.place, again.outputs(), elsewhere)
