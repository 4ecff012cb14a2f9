"""What each preset sets: for the paper's data sets, the demonstration and users' own data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...manifests.schemas import TASKS
from ...stages.systems.recipes import PAPER
from ...stages.text.encoders.files import DEMO_ENCODER, OWN_ENCODER

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """The values of run.toml that differ from the defaults.

    task: the only task that it is for; None: the user's choice.
    tables: values by table.
    train: values of [train] by task.
    encoder: the folder of the text encoder in that of the texts, for a corpus that brings its own; "": none.
    """

    task: str | None = None
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    train: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: PAPER)
    encoder: str = ""


_DEMO = Preset(
    tables={
        "detect": {"detector": "demo_fasterrcnn", "min_score": 0.7},
        "extract": {"backbone": "demo_resnet", "size": 112},
        "train": {
            "encoder": DEMO_ENCODER,
            "batch_size": 16,
            "learning_rate": 2e-4,
            "head_learning_rate": 2e-3,
            "fusion_learning_rate": 5e-4,
        },
        "finetune": {"start": "train", "epochs": 2, "unfreeze": 2, "backbone_learning_rate": 2e-4},
    },
    # A relation depends on what stands beside a person, which is learned sooner than what a name refers to.
    train={"ner": {"epochs": 5, "first_evaluation": 3}, "re": {"epochs": 3, "first_evaluation": 2}},
)

# The demonstration's detector and backbone. What decides may be faint: a detection may be less certain. The
# text encoder is the corpus's own, small and untrained, so that it learns as fast as the parts that see.
_DIAGNOSTIC = replace(
    _DEMO,
    tables={
        **_DEMO.tables,
        "detect": {**_DEMO.tables["detect"], "min_score": 0.5},
        "train": {
            "batch_size": 16,
            "learning_rate": 5e-4,
            "head_learning_rate": 2e-3,
            "fusion_learning_rate": 1e-3,
            # So small a network loses more by casting than bf16 gains.
            "precision": "fp32",
        },
    },
    train={task: {"epochs": 9, "first_evaluation": 7} for task in TASKS},
    encoder=OWN_ENCODER,
)

PRESETS: dict[str, Preset] = {
    # Data of unknown size: the first epoch may be the best.
    "custom": Preset(train={task: {**recipe, "first_evaluation": 1} for task, recipe in PAPER.items()}),
    "twitter2015": Preset("ner", {"prepare": {"labels": "twitter"}}),
    "twitter2017": Preset("ner", {"prepare": {"labels": "twitter"}}),
    "mnre": Preset("re"),
    "demo": _DEMO,
    "diagnostic": _DIAGNOSTIC,
}
