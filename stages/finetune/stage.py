"""The finetune stage: text encoder, fusion and visual backbone trained together, from pixels.

Everything but the backbone is as in train: the model, the heads, the recipe of [train] in run.toml, the metrics and
the checkpoints.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError
from ...manifests.fingerprint import digest_file
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS, IMAGES, OUTCOMES, SAMPLES
from ...manifests.tables import sound_digests, table_digest
from ..base.stage import Stage
from ..base.tools import SILENT, Counts, Tools
from ..learning.causes import checkpoint_folder, encoder_weights, model_outputs, recipe_parameters
from ..learning.recipe import TrainingJob, TrainSettings
from ..systems.registry import system_is_visual
from ..text.encoders.files import resolve_encoder
from ..vision.plan import ViewSource
from .settings import PRETRAINED, TRAINED, FinetuneSettings

__all__ = ["Finetune"]


@dataclass(frozen=True)
class Finetune(Stage):
    """samples.parquet, detections.parquet and the images to models/<system>/finetuned-seed-<n>/.

    settings: train's. source: the stage that would make the cache of the backbone as it is before it learns; its
    images, boxes and views are used here. See Stage for the contract.
    """

    run: RunFolder
    settings: TrainSettings
    task: str
    system: str
    seed: int
    finetune: FinetuneSettings
    source: ViewSource

    schema_version = 1

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"finetune-{self.system}-seed-{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the model is written."""
        return self.run.finetuned(self.system, self.seed)

    @property
    def visual(self) -> bool:
        """Whether the system reads images, without which there is nothing to train end to end."""
        return system_is_visual(self.system, self.task)

    @property
    def recipe(self) -> TrainSettings:
        """[train], with the epochs of [finetune]."""
        epochs = self.finetune.epochs or self.settings.epochs
        return replace(
            self.settings, epochs=epochs, first_evaluation=min(self.settings.first_evaluation, epochs)
        )

    @property
    def start(self) -> Path | None:
        """The folder of the model to start from, or None for pretrained weights. Raises InputError where there is none."""
        if self.finetune.start == PRETRAINED:
            return None
        folder = (
            self.run.model(self.system, self.seed)
            if self.finetune.start == TRAINED
            else Path(self.finetune.start)
        )
        if not (folder / "model.safetensors").is_file():
            raise InputError(
                f"--from: {folder} holds no trained model; run `hmnet-pipe train {self.run.path} "
                f"--system {self.system} --seed {self.seed}` first, or use --from {PRETRAINED}"
            )
        return folder

    def parameters(self) -> dict[str, Any]:
        own, visual = asdict(self.finetune), self.source.parameters()
        # The start's digest is among the weights; the others change nothing.
        for name in ("start", "epochs", "decoders", "recompute"):
            del own[name]
        del visual["dtype"], visual["precision"]  # nothing is stored, and one precision is for all
        return {**recipe_parameters(self.recipe, system=self.system, seed=self.seed), **own, **visual}

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        return {
            "samples": table_digest(self.run.samples, SAMPLES, "prepare"),
            "images": table_digest(self.run.images, IMAGES, "prepare"),
            "detections": table_digest(self.run.detections, DETECTIONS, "detect"),
        }

    def weights(self) -> dict[str, str]:
        found = {**encoder_weights(self.settings), **self.source.weights()}
        if (start := self.start) is not None:
            found["start"] = digest_file(start / "model.safetensors")
        return found

    def outputs(self) -> dict[str, str]:
        return {
            **model_outputs(self.folder, "backbone.safetensors"),
            **sound_digests({"outcomes": (self.run.outcomes(self.name), OUTCOMES)}),
        }

    def checkpoints(
        self, parameters: dict[str, Any], inputs: dict[str, str], weights: dict[str, str]
    ) -> Path:
        """Return where a training with these causes keeps its checkpoint."""
        return checkpoint_folder(self.run.work(self.name), parameters, inputs, weights)

    def compute(self, tools: Tools) -> Counts:
        from .work import finetune

        if not self.visual:
            raise InputError(
                f"{self.system} reads no images: there is nothing to train end to end; use `hmnet-pipe train`"
            )
        job = TrainingJob(
            name=self.name,
            title=f"finetune {self.system} seed {self.seed}",
            command=f"hmnet-pipe finetune {self.run.path}",
            task=self.task,
            system=self.system,
            seed=self.seed,
            shots=self.settings.shots,
            subset_seed=self.seed,
            recipe=self.recipe,
            rates={**self.settings.rates, "backbone": self.finetune.backbone_learning_rate},
            encoder=resolve_encoder(self.settings.encoder),
            samples=self.run.samples,
            config=self.run.config,
            folder=self.folder,
            checkpoints=self.checkpoints(self.parameters(), self.inputs(), self.weights()),
            logs=self.run.logs(self.name) if self.settings.tensorboard else None,
            checkpoint_seconds=tools.checkpoint_seconds,
        )
        return finetune(
            job, self.finetune, self.source.plan(), self.start, self.run.outcomes(self.name), tools
        )

    def finish(self) -> None:
        shutil.rmtree(self.run.work(self.name), ignore_errors=True)
