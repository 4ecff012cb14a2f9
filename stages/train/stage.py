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
from ..base.stage import Rerun, given_settings
from ..base.tools import SILENT, Counts, Tools
from ..learning.causes import encoder_weights, model_outputs
from ..learning.recipe import TrainSettings
from ..learning.training import Training
from ..systems.registry import system_is_visual

__all__ = ["Train"]


@dataclass(frozen=True)
class Train(Training):
    """From samples.parquet and features/<set>/ to models/<trial>/. See Stage for the contract."""

    run: RunFolder
    settings: TrainSettings
    task: str
    trial: Trial
    negative: str = ""

    kind = "train"
    schema_version = 1

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
        return self.recipe_parameters(self.settings)

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

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        from .work import train

        job = self.job(self.settings, self.settings.rates, causes, tools)
        return train(job, self.run.features(self.feature_set) if self.visual else None, tools)

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        again = replace(self, run=scratch)
        scratch.samples.symlink_to(self.run.samples.resolve())
        if self.visual:
            features = scratch.features(self.feature_set)
            features.parent.mkdir()
            features.symlink_to(self.run.features(self.feature_set).resolve())
        return self.rerun(again, record, elsewhere, tools)
