"""What a training is given: its recipe, which run.toml holds, and its job, which a stage makes from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, unknown_name
from ...manifests.trial import AS_PUBLISHED, RUN, Trial, check_recipe_name
from ..base.arithmetic import PRECISIONS
from ..base.settings import check_settings, setting
from ..systems.recipes import published_recipe
from ..systems.registry import RELATION_HEADS
from ..text.vectors import MOST_DIMENSIONS

__all__ = [
    "MOST_EPOCHS",
    "OPTIMIZERS",
    "SCHEDULES",
    "Recipes",
    "TrainSettings",
    "TrainingJob",
    "check_recipe",
    "is_later_default",
]

Recipes = Mapping[str, Mapping[str, Any]]
"""A run's own recipes, the tables [recipes.NAME] of run.toml: the keys of [train] that each one changes."""

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("linear", "inverse", "step")

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
    word_learning_rate: float = setting(
        1e-3, "learning rate of what reads words in systems without a pretrained text encoder", at_least=0
    )
    optimizer: str = setting("adamw", "adamw, adam or sgd", one_of=OPTIMIZERS)
    momentum: float = setting(0.0, "momentum of sgd", at_least=0, at_most=0.9999)
    weight_decay: float = setting(
        0.01, "weight decay of all but biases and LayerNorm weights", at_least=0, at_most=1
    )
    warmup: float = setting(
        0.1,
        "share of the updates over which the learning rates rise; they fall after, as schedule says",
        at_least=0,
        at_most=1,
    )
    schedule: str = setting(
        "linear",
        "how the rates fall: 'linear' to zero; 'inverse': rate / (1 + decay * epochs); 'step': rate times "
        "1 - decay every step_epochs epochs",
        one_of=SCHEDULES,
    )
    decay: float = setting(0.0, "how fast the rates fall by schedule inverse or step", at_least=0)
    step_epochs: int = setting(
        1, "epochs between two steps of schedule step", at_least=1, at_most=MOST_EPOCHS
    )
    head_dropout: float = setting(
        -1.0, "dropout before the classifier; below 0: the system's own", at_least=-1, at_most=0.99
    )
    clip_norm: float = setting(1.0, "largest norm of the gradient; 0: no clipping", at_least=0)
    max_length: int = setting(
        128,
        "sub-words per text, with special tokens; for systems on words: words per text",
        at_least=8,
        at_most=2**17,
    )
    vectors: str = setting(
        "",
        "file of word vectors in GloVe's text format, also gzip, for systems on words; none: learned",
        words=("",),
    )
    word_dim: int = setting(
        0,
        "features of a word without a file of vectors; 0: as many as the system's paper has",
        at_least=0,
        at_most=MOST_DIMENSIONS,
    )
    relation_head: str = setting(
        "markers",
        "for relations: 'markers' (both opening entity markers) or 'cls' ([CLS])",
        one_of=RELATION_HEADS,
    )
    precision: str = setting(
        "auto", "auto, fp32 or bf16; auto is bf16 where the hardware multiplies it", one_of=PRECISIONS
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    cuda_graphs: bool = setting(
        True, "on a GPU, start the kernels of a step all at once, as a CUDA graph; changes no number"
    )
    processes: int = setting(1, "processes that train together; torchrun sets it", at_least=1, at_most=2**12)
    tensorboard: bool = setting(False, "draw losses, rates and scores for TensorBoard, in logs/")

    def __post_init__(self) -> None:
        check_settings("train", self)
        if self.first_evaluation > self.epochs:
            raise InputError(
                f"[train] first_evaluation {self.first_evaluation} comes after the last of {self.epochs} "
                f"epochs; set it to at most {self.epochs} (--first-evaluation {self.epochs}), or train longer"
            )
        if self.momentum and self.optimizer != "sgd":
            raise InputError(
                f"[train] momentum {self.momentum} is for optimizer = 'sgd', not {self.optimizer!r}; set it "
                "to 0 or change the optimizer"
            )
        if self.decay and self.schedule == "linear":
            raise InputError(
                f"[train] decay {self.decay} is for schedule = 'inverse' or 'step', not 'linear'; set it to "
                "0 or change the schedule"
            )
        if self.decay >= 1 and self.schedule == "step":
            raise InputError(f"[train] decay must be below 1 with schedule = 'step', not {self.decay}")

    def of(self, trial: Trial, task: str, recipes: Recipes) -> "TrainSettings":
        """Return how a trial is trained: by this table, by one of `recipes`, or as its system was published.

        A recipe of the run's changes some keys of this table; a published one decides all but what depends on
        the data, the encoder and the machine. Raises InputError where the trial asks for one and there is
        none.
        """
        if trial.recipe == RUN:
            return self
        if trial.recipe != AS_PUBLISHED:
            return replace(self, **_known(trial.recipe, recipes))
        defaults = {each.name: each.default for each in fields(self) if each.name not in _NOT_OF_A_RECIPE}
        return replace(self, **{**defaults, **published_recipe(trial.system, task).values})

    @staticmethod
    def check_options(trial: Trial, given: Mapping[str, Any], recipes: Recipes) -> None:
        """Raise InputError where a key of [train] is `given`, and not None, that the recipe decides."""
        if trial.recipe == RUN:
            return
        of_all = trial.recipe == AS_PUBLISHED
        decided = given if of_all else _known(trial.recipe, recipes)
        names = [
            name
            for name, value in given.items()
            if value is not None and name in decided and name not in _NOT_OF_A_RECIPE
        ]
        if names:
            raise InputError(
                f"--{names[0].replace('_', '-')} and --recipe {trial.recipe} cannot both be given: the "
                f"{'published ' if of_all else ''}recipe decides it; leave one of them out"
            )

    @property
    def rates(self) -> dict[str, float]:
        """Return the learning rate of each part of the model."""
        return {
            "encoder": self.learning_rate,
            "head": self.head_learning_rate,
            "fusion": self.fusion_learning_rate,
            "words": self.word_learning_rate,
        }


def _known(name: str, recipes: Recipes) -> Mapping[str, Any]:
    """Return the recipe of this name. Raises InputError where there is none."""
    if name not in recipes:
        raise unknown_name("--recipe", name, (RUN, AS_PUBLISHED, *recipes))
    return recipes[name]


def check_recipe(name: str, values: Any, settings: TrainSettings) -> None:
    """Raise InputError where a table [recipes.NAME] is no recipe: its name, a key, or a value.

    settings: the table [train] that it changes.
    """
    check_recipe_name(name)
    if not isinstance(values, dict):
        raise InputError(f"recipes.{name} must be a table, [recipes.{name}] with a line for each key")
    known = [each.name for each in fields(TrainSettings) if each.name not in _NOT_OF_A_RECIPE]
    for key in values:
        if key not in known:
            raise unknown_name(f"[recipes.{name}] the key", key, known)
    try:
        replace(settings, **values)
    except InputError as error:
        raise InputError(f"[recipes.{name}]: {error}") from error


# What depends on the data, the encoder and the machine, and stays as run.toml has it.
_NOT_OF_A_RECIPE = (
    "encoder",
    "max_length",
    "relation_head",
    "precision",
    "device",
    "cuda_graphs",
    "processes",
    "tensorboard",
    "vectors",
)

# Keys that were added when there were trainings already.
_LATER = (
    "word_learning_rate",
    "word_dim",
    "vectors",
    "optimizer",
    "momentum",
    "schedule",
    "decay",
    "step_epochs",
    "head_dropout",
)


def is_later_default(name: str, value: Any) -> bool:
    """Return whether a key of [train] came when there were trainings already, and has its default.

    Such a key is in no fingerprint: a training from before it was trained just so.
    """
    return name in _LATER and value == getattr(TrainSettings, name)


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
    made_by: how each stage made what the model reads; see stages.learning.made_by.
    start: the folder of the trained model to start from, or None; see stages.learning.transfer.
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
    made_by: Mapping[str, Any] = field(default_factory=dict)
    start: Path | None = None
