"""The train stage: one system, one seed, on the cached features.

The model of the epoch with the best validation F1 is kept and scores the test split once. A killed training
resumes from its last checkpoint, at the update where it was, with the optimizer, the schedule, the generators
and the order of the data as they were.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...cache.reader import FeatureCache
from ...manifests.record import StageRecord
from ...manifests.run import DEFAULT_SET, RunFolder, extract_name
from ...manifests.schemas import SAMPLES
from ...manifests.tables import table_digest
from ...manifests.trial import Trial
from ..base.settings import local_files
from ..base.stage import Progress, Rerun, Stage, given_settings
from ..base.tools import SILENT, Counts, Tools
from ..learning.causes import (
    checkpoint_folder,
    compare_models,
    encoder_weights,
    model_outputs,
    model_scores,
    recipe_parameters,
    training_progress,
)
from ..learning.negative import negative_of
from ..learning.recipe import TrainingJob, TrainSettings
from ..systems.registry import system_is_visual
from ..text.encoders.files import resolve_encoder

__all__ = ["Train"]


@dataclass(frozen=True)
class Train(Stage):
    """From samples.parquet and features/<set>/ to models/<trial>/. See Stage for the contract."""

    run: RunFolder
    settings: TrainSettings
    task: str
    trial: Trial
    negative: str = ""

    kind = "train"
    schema_version = 1
    repeats_whole = True

    @property
    def name(self) -> str:
        return f"train-{self.trial.name}"

    @property
    def place(self) -> Path:
        return self.run.model(self.trial)

    @property
    def visual(self) -> bool:
        """Return whether the system reads the cached features."""
        return system_is_visual(self.trial.system, self.task)

    @property
    def feature_set(self) -> str:
        """Return the name of the feature set that a visual system reads."""
        return self.trial.features or DEFAULT_SET

    def parameters(self) -> dict[str, Any]:
        record = StageRecord.known(self.run.record(self.name))
        negative = negative_of(self.run.samples, self.negative) if self.task == "re" else None
        return recipe_parameters(self.settings, self.trial, record, negative)

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        digests = {"samples": table_digest(self.run.samples, SAMPLES, "prepare")}
        if self.visual:
            digests["features"] = FeatureCache(self.run.features(self.feature_set)).digest()
        return digests

    def weights(self) -> dict[str, str]:
        return encoder_weights(self.settings)

    def outputs(self) -> dict[str, str]:
        return model_outputs(self.place)

    def output_path(self, output: str) -> Path:
        return self.place / output

    def before(self) -> tuple[str, ...]:
        return ("prepare", extract_name(self.feature_set)) if self.visual else ("prepare",)

    def given(self) -> dict[str, Any]:
        return given_settings(self.settings)

    def sources(self) -> Iterator[Path]:
        yield from local_files(self.settings).values()

    def command(self) -> str:
        return f"{super().command()} {self.trial.options}"

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        from .work import train

        job = TrainingJob(
            name=self.name,
            title=f"train {self.trial.title}",
            command=super().command(),
            task=self.task,
            trial=self.trial,
            recipe=self.settings,
            rates=self.settings.rates,
            encoder=resolve_encoder(self.settings.encoder),
            samples=self.run.samples,
            negative=self.negative,
            config=self.run.config,
            folder=self.place,
            checkpoints=checkpoint_folder(self.run.work(self.name), causes),
            logs=self.run.logs(self.name) if self.settings.tensorboard else None,
            checkpoint_seconds=tools.checkpoint_seconds,
        )
        return train(job, self.run.features(self.feature_set) if self.visual else None, tools)

    def progress(self, causes: StageRecord) -> Progress | None:
        return training_progress(checkpoint_folder(self.run.work(self.name), causes))

    def scores(self) -> dict[str, Any] | None:
        return model_scores(self.place, self.trial)

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        again = replace(self, run=scratch)
        scratch.samples.symlink_to(self.run.samples.resolve())
        if self.visual:
            features = scratch.features(self.feature_set)
            features.parent.mkdir()
            features.symlink_to(self.run.features(self.feature_set).resolve())
        again.compute(again.causes(tools), tools)
        return compare_models(record, self.place, again.place, again.outputs(), elsewhere)
