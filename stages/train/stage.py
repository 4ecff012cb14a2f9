"""The train stage: one system, one seed, on the cached features.

The model of the epoch with the best validation F1 is kept, and the test split is scored once, by that model. A
killed training resumes from its last checkpoint with the optimizer, the schedule, the generators and the order of
the data as they were, at the update where it was.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.reader import FeatureCache
from ...manifests.run import RunFolder
from ...manifests.schemas import SAMPLES
from ...manifests.tables import table_digest
from ..base.stage import Stage
from ..base.tools import SILENT, Counts, Tools
from ..learning.causes import checkpoint_folder, encoder_weights, model_outputs, recipe_parameters
from ..learning.recipe import TrainingJob, TrainSettings
from ..systems.registry import system_is_visual
from ..text.encoders.files import resolve_encoder

__all__ = ["Train"]


@dataclass(frozen=True)
class Train(Stage):
    """samples.parquet and features/ to models/<system>/seed-<n>/. See Stage for the contract."""

    run: RunFolder
    settings: TrainSettings
    task: str
    system: str
    seed: int

    schema_version = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"train-{self.system}-seed-{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the model is written."""
        return self.run.model(self.system, self.seed)

    @property
    def visual(self) -> bool:
        """Whether the system reads the cached features."""
        return system_is_visual(self.system, self.task)

    def parameters(self) -> dict[str, Any]:
        return recipe_parameters(self.settings, system=self.system, seed=self.seed)

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        digests = {"samples": table_digest(self.run.samples, SAMPLES, "prepare")}
        if self.visual:
            digests["features"] = FeatureCache(self.run.features).digest()
        return digests

    def weights(self) -> dict[str, str]:
        return encoder_weights(self.settings)

    def outputs(self) -> dict[str, str]:
        return model_outputs(self.folder)

    def checkpoints(
        self, parameters: dict[str, Any], inputs: dict[str, str], weights: dict[str, str]
    ) -> Path:
        """Return where a training with these causes keeps its checkpoint."""
        return checkpoint_folder(self.run.work(self.name), parameters, inputs, weights)

    def compute(self, tools: Tools) -> Counts:
        from .work import train

        job = TrainingJob(
            name=self.name,
            title=f"train {self.system} seed {self.seed}",
            command=f"hmnet-pipe train {self.run.path}",
            task=self.task,
            system=self.system,
            seed=self.seed,
            shots=self.settings.shots,
            subset_seed=self.seed,
            recipe=self.settings,
            rates=self.settings.rates,
            encoder=resolve_encoder(self.settings.encoder),
            samples=self.run.samples,
            config=self.run.config,
            folder=self.folder,
            checkpoints=self.checkpoints(self.parameters(), self.inputs(), self.weights()),
            logs=self.run.logs(self.name) if self.settings.tensorboard else None,
            checkpoint_seconds=tools.checkpoint_seconds,
        )
        return train(job, self.run.features if self.visual else None, tools)

    def finish(self) -> None:
        shutil.rmtree(self.run.work(self.name), ignore_errors=True)
