"""What a training is given: its recipe, which run.toml holds, and its job, which a stage makes from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...manifests.errors import InputError
from ...manifests.trial import Trial
from ..base.arithmetic import PRECISIONS
from ..base.settings import check_settings, setting
from ..systems.registry import RELATION_HEADS

__all__ = ["MOST_EPOCHS", "TrainSettings", "TrainingJob"]

MOST_EPOCHS = 100_000
"""More epochs than any training takes."""


@dataclass(frozen=True)
class TrainSettings:
    """The table [train] of run.toml: the recipe of the paper's appendix B."""

    encoder: str = setting(
        "bert-base-uncased", "text encoder: a Hugging Face name or a local folder", words=()
    )
    epochs: int = setting(30, "passes over the training split", at_least=1, at_most=MOST_EPOCHS)
    first_evaluation: int = setting(
        1, "first epoch (from 1) after which the validation split is scored", at_least=1, at_most=MOST_EPOCHS
    )
    patience: int = setting(
        0,
        "stop after this many epochs without a better validation F1; 0: never",
        at_least=0,
        at_most=MOST_EPOCHS,
    )
    batch_size: int = setting(8, "samples per batch, over all processes", at_least=1, at_most=2**16)
    accumulate: int = setting(1, "batches per update", at_least=1, at_most=2**16)
    learning_rate: float = setting(3e-5, "learning rate of the text encoder", at_least=0)
    head_learning_rate: float = setting(1e-3, "learning rate of the classifier and the CRF", at_least=0)
    fusion_learning_rate: float = setting(
        1e-4, "learning rate of the projections, gates and prefixes", at_least=0
    )
    weight_decay: float = setting(
        0.01, "weight decay of all but biases and LayerNorm weights", at_least=0, at_most=1
    )
    warmup: float = setting(
        0.1,
        "share of the updates over which the learning rates rise; they fall linearly after",
        at_least=0,
        at_most=1,
    )
    clip_norm: float = setting(1.0, "largest norm of the gradient; 0: no clipping", at_least=0)
    max_length: int = setting(128, "sub-words per text, with special tokens", at_least=8, at_most=2**17)
    relation_head: str = setting(
        "markers",
        "for relations: 'markers' (both opening entity markers) or 'cls' ([CLS])",
        one_of=RELATION_HEADS,
    )
    precision: str = setting(
        "auto", "auto, fp32 or bf16; auto is bf16 where the hardware multiplies it", one_of=PRECISIONS
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    processes: int = setting(1, "processes that train together; torchrun sets it", at_least=1, at_most=2**12)
    tensorboard: bool = setting(False, "draw losses, rates and scores for TensorBoard, in logs/")

    def __post_init__(self) -> None:
        check_settings("train", self)
        if self.first_evaluation > self.epochs:
            raise InputError(
                f"[train] first_evaluation {self.first_evaluation} comes after the last of {self.epochs} "
                "epochs"
            )

    @property
    def rates(self) -> dict[str, float]:
        """Return the learning rate of each part of the model."""
        return {
            "encoder": self.learning_rate,
            "head": self.head_learning_rate,
            "fusion": self.fusion_learning_rate,
        }


@dataclass(frozen=True)
class TrainingJob:
    """One training in plain facts: what is trained, how, and where its files lie.

    name: the stage's, as in its record.
    title: the same for people.
    command: how a user starts it.
    recipe: how it is trained.
    rates: the learning rate of each part of the model.
    encoder: the folder of the pretrained text encoder; None for a system on words.
    samples: the table of samples.
    config: the run.toml that holds the recipe.
    folder: where the model is written.
    checkpoints: where an interrupted training keeps its state.
    logs: TensorBoard's folder, or None. negative: the negative relation that run.toml names; "": none.
    """

    name: str
    title: str
    command: str
    task: str
    trial: Trial
    recipe: TrainSettings
    rates: Mapping[str, float]
    encoder: Path | None
    samples: Path
    config: Path
    folder: Path
    checkpoints: Path
    logs: Path | None
    checkpoint_seconds: float = 60.0
    negative: str = ""
