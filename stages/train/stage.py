"""The train stage: one system, one seed, on the cached features.

The model of the epoch with the best validation F1 is kept, and the test split is scored once, by that model. A killed training
resumes from its last checkpoint with the optimizer, the schedule, the generators and the order of the data as they were, at the
update where it was.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...cache.reader import FeatureCache
from ...manifests.errors import InputError
from ...manifests.fingerprint import digest_file, digest_json
from ...manifests.run import RunFolder
from ...manifests.tables import PREDICTIONS, SAMPLES, sound_digests, table_digest
from ..compute import resolve_device, resolve_precision
from ..stage import SILENT, Counts, Stage, Tools, setting
from .encoder_files import encoder_digest, resolve_encoder
from .systems import RELATION_HEADS, system_is_visual

__all__ = ["Train", "TrainSettings"]


@dataclass(frozen=True)
class TrainSettings:
    """The table [train] of run.toml: the recipe of the paper's appendix B."""

    encoder: str = setting("bert-base-uncased", "text encoder: a Hugging Face name or a local folder")
    epochs: int = setting(30, "passes over the training split")
    first_evaluation: int = setting(1, "first epoch (from 1) after which the validation split is scored")
    patience: int = setting(0, "stop after this many epochs without a better validation F1; 0: never")
    shots: int = setting(
        0, "low-resource: train on this many samples of each class, drawn without replacement; 0: all"
    )
    batch_size: int = setting(8, "samples a batch, over all processes")
    accumulate: int = setting(1, "batches an update")
    learning_rate: float = setting(3e-5, "learning rate of the text encoder")
    head_learning_rate: float = setting(1e-3, "learning rate of the classifier and the CRF")
    fusion_learning_rate: float = setting(1e-4, "learning rate of the projections, gates and prefixes")
    weight_decay: float = setting(0.01, "weight decay of all but biases and LayerNorm weights")
    warmup: float = setting(
        0.1, "share of the updates over which the learning rates rise; they fall linearly after"
    )
    clip_norm: float = setting(1.0, "largest norm of the gradient; 0: no clipping")
    max_length: int = setting(128, "sub-words a text, with special tokens")
    relation_head: str = setting(
        "markers", "for relations: 'markers' (both opening entity markers) or 'cls' ([CLS])"
    )
    precision: str = setting("auto", "auto, fp32 or bf16; auto is bf16 where the hardware multiplies it")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    processes: int = setting(1, "processes that train together; torchrun sets it")
    tensorboard: bool = setting(False, "draw losses, rates and scores for TensorBoard, in logs/")

    def __post_init__(self) -> None:
        if self.relation_head not in RELATION_HEADS:
            raise InputError(
                f"train: relation_head {self.relation_head!r} is not one of {', '.join(RELATION_HEADS)}"
            )
        if min(self.epochs, self.first_evaluation, self.batch_size, self.accumulate, self.processes) < 1:
            raise InputError(
                "train: epochs, first_evaluation, batch_size, accumulate and processes must be at least 1"
            )
        if min(self.patience, self.shots) < 0:
            raise InputError("train: patience and shots must not be negative")
        if self.max_length < 8:
            raise InputError(f"train: max_length must be at least 8, not {self.max_length}")
        if self.first_evaluation > self.epochs:
            raise InputError(
                f"train: first_evaluation {self.first_evaluation} comes after the last of {self.epochs} epochs"
            )

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate of each part of the model."""
        return {
            "encoder": self.learning_rate,
            "head": self.head_learning_rate,
            "fusion": self.fusion_learning_rate,
        }


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
        return self.run.model(self.system, self.seed)

    @property
    def visual(self) -> bool:
        return system_is_visual(self.system, self.task)

    def parameters(self) -> dict[str, Any]:
        values = asdict(self.settings)
        device = resolve_device(values.pop("device"))
        del values["encoder"], values["tensorboard"]  # the encoder's digest is among the weights
        values["precision"] = resolve_precision(values["precision"], device)
        return {**values, "device": device.type, "system": self.system, "seed": self.seed}

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        digests = {"samples": table_digest(self.run.samples, SAMPLES, "prepare")}
        if self.visual:
            digests["features"] = FeatureCache(self.run.features).digest()
        return digests

    def weights(self) -> dict[str, str]:
        return {"encoder": encoder_digest(resolve_encoder(self.settings.encoder))}

    def outputs(self) -> dict[str, str]:
        found = sound_digests({"predictions.parquet": (self.folder / "predictions.parquet", PREDICTIONS)})
        for name in ("model.safetensors", "metrics.json", "config.json"):
            if (self.folder / name).is_file():
                found[name] = digest_file(self.folder / name)
        return found

    def checkpoint_folder(
        self, parameters: dict[str, Any], inputs: dict[str, str], weights: dict[str, str]
    ) -> Path:
        """Where a training with these causes keeps its checkpoint: one of other settings is never resumed."""
        decides = {"parameters": parameters, "inputs": inputs, "weights": weights}
        return self.run.work(self.name) / digest_json(decides)[:16]

    def compute(self, tools: Tools) -> Counts:
        from .training import train

        return train(self, tools)

    def finish(self) -> None:
        shutil.rmtree(self.run.work(self.name), ignore_errors=True)
