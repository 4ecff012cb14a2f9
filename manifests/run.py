"""Where everything lies in a run's folder, and the record that each stage leaves there."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run; creating the object touches nothing on disk."""

    path: Path

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
    def detections(self) -> Path:
        return self.path / "detections.parquet"

    @property
    def crops(self) -> Path:
        return self.path / "crops"

    @property
    def features(self) -> Path:
        return self.path / "features"

    def outcomes(self, stage: str) -> Path:
        """The table (manifests.tables.OUTCOMES) of what a visual stage did with each image."""
        return self.path / "stages" / f"{stage}.parquet"

    def work(self, stage: str) -> Path:
        """Where a stage keeps finished parts until all are there; a resumed stage reads them, a finished one removes them."""
        return self.path / "stages" / f"{stage}.parts"

    def record(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"

    def lock(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.lock"

    def model(self, system: str, seed: int) -> Path:
        return self.path / "models" / system / f"seed-{seed}"

    def finetuned(self, system: str, seed: int) -> Path:
        """The model that finetune made, with its backbone."""
        return self.path / "models" / system / f"finetuned-seed-{seed}"

    def refreshed(self, system: str, seed: int) -> Path:
        """A run of its own on the features of a fine-tuned backbone."""
        return self.path / "refreshed" / f"{system}-seed-{seed}"

    def logs(self, stage: str) -> Path:
        """TensorBoard's files of one training."""
        return self.path / "logs" / stage
