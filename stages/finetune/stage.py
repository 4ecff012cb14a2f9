"""The finetune stage: text encoder, fusion and visual backbone trained together, from pixels.

Everything but the backbone is train's: the model, the heads, the recipe of [train] in run.toml, the metrics and the checkpoints.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError
from ...manifests.fingerprint import digest_file
from ...manifests.schemas import DETECTIONS, IMAGES, OUTCOMES, SAMPLES
from ...manifests.tables import sound_digests, table_digest
from ..base.tools import SILENT, Counts, Tools
from ..extract.settings import ExtractSettings
from ..extract.stage import Extract
from ..learning.recipe import TrainSettings
from ..train.stage import Train
from .settings import _TRAINED, PRETRAINED, FinetuneSettings

__all__ = ["Finetune"]


@dataclass(frozen=True)
class Finetune(Train):
    """samples.parquet, detections.parquet and the images to models/<system>/finetuned-seed-<n>/. `settings` are train's."""

    finetune: FinetuneSettings
    extract: ExtractSettings
    objects: int

    schema_version = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"finetune-{self.system}-seed-{self.seed}"

    @property
    def folder(self) -> Path:
        return self.run.finetuned(self.system, self.seed)

    @property
    def recipe(self) -> TrainSettings:
        """[train], with the epochs and the backbone's rate of [finetune]."""
        epochs = self.finetune.epochs or self.settings.epochs
        return replace(
            self.settings, epochs=epochs, first_evaluation=min(self.settings.first_evaluation, epochs)
        )

    @property
    def rates(self) -> dict[str, float]:
        return {**self.settings.rates, "backbone": self.finetune.backbone_learning_rate}

    @property
    def extraction(self) -> Extract:
        """The stage that would make the cache of this backbone as it is before it learns: its images, boxes and views are used here."""
        return Extract(self.run, self.extract, self.objects)

    @property
    def start(self) -> Path | None:
        """The folder of the model to start from, or None for pretrained weights. Raises InputError where there is none."""
        if self.finetune.start == PRETRAINED:
            return None
        folder = (
            self.run.model(self.system, self.seed)
            if self.finetune.start == _TRAINED
            else Path(self.finetune.start)
        )
        if not (folder / "model.safetensors").is_file():
            remedy = f"run `hmnet-pipe train {self.run.path} --system {self.system} --seed {self.seed}` first, or use --from {PRETRAINED}"
            raise InputError(f"--from: {folder} holds no trained model; {remedy}")
        return folder

    def parameters(self) -> dict[str, Any]:
        own = asdict(self.finetune)
        for name in (
            "start",
            "epochs",
            "decoders",
            "recompute",
        ):  # the start's digest is among the weights; the others change nothing
            del own[name]
        visual = self.extraction.parameters()
        del visual["dtype"], visual["precision"]  # nothing is stored, and one precision is for all
        return {
            **Train(self.run, self.recipe, self.task, self.system, self.seed).parameters(),
            **own,
            **visual,
        }

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        return {
            "samples": table_digest(self.run.samples, SAMPLES, "prepare"),
            "images": table_digest(self.run.images, IMAGES, "prepare"),
            "detections": table_digest(self.run.detections, DETECTIONS, "detect"),
        }

    def weights(self) -> dict[str, str]:
        found = {**super().weights(), **self.extraction.weights()}
        if (start := self.start) is not None:
            found["start"] = digest_file(start / "model.safetensors")
        return found

    def outputs(self) -> dict[str, str]:
        found = {**super().outputs(), **sound_digests({"outcomes": (self.run.outcomes(self.name), OUTCOMES)})}
        if (self.folder / "backbone.safetensors").is_file():
            found["backbone.safetensors"] = digest_file(self.folder / "backbone.safetensors")
        return found

    def compute(self, tools: Tools) -> Counts:
        from .work import finetune

        return finetune(self, tools)
