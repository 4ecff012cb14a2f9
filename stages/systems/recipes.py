"""How each system was trained where it was published, on one page: `train --recipe as-published`.

The default is one recipe for all systems, that of the paper's appendix B (PAPER), which run.toml holds: by
that one alone are the scores of two systems comparable. Importing this needs no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...manifests.errors import InputError
from .variants import VARIANTS

__all__ = ["PAPER", "RECIPES", "Recipe", "published_recipe"]

PAPER: dict[str, dict[str, Any]] = {
    "ner": {"batch_size": 8, "learning_rate": 3e-5, "epochs": 30, "first_evaluation": 16},
    "re": {"batch_size": 32, "learning_rate": 1e-5, "epochs": 12, "first_evaluation": 8},
}
"""The paper's appendix B by task. What is not given here is the default of [train]."""


@dataclass(frozen=True)
class Recipe:
    """A published recipe.

    source: where it was published.
    values: the keys of [train] that it sets; the others that a recipe decides have their defaults.
    departs: what is done differently here, and why; "": nothing.
    """

    source: str
    values: Mapping[str, Any]
    departs: str = ""


def _one_rate(rate: float) -> dict[str, float]:
    """Return one learning rate for every part of a model."""
    parts = ("learning_rate", "head_learning_rate", "fusion_learning_rate", "word_learning_rate")
    return dict.fromkeys(parts, rate)


_HMNET = {
    task: Recipe("the paper, appendix B", values, "the rates of head and fusion are not published")
    for task, values in PAPER.items()
}

_UMT = Recipe(
    "jefferyYu/UMT; Yu et al. 2020 trained BERT-CRF by it too",
    {
        **_one_rate(5e-5),
        "batch_size": 32,
        "epochs": 24,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
    },
    "AdamW for BertAdam; the norm of the whole gradient is clipped, not that of each tensor; 24 epochs are "
    "those of Twitter-2015 (22 for 2017)",
)

_UMT_RELATIONS = "as for entities; its authors train no relations, and 12 epochs are ours"

_UMGF = Recipe(
    "TransformersWsz/UMGF",
    {
        **_one_rate(1e-4),
        "optimizer": "adam",
        "batch_size": 16,
        "epochs": 30,
        "warmup": 0.0,
        "schedule": "step",
        "decay": 0.2,
        "step_epochs": 2,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
    },
    "the samples are shuffled, the loss is a mean and not a sum, and the backbone is not trained",
)

_ADAPCOATT = Recipe(
    "ours, as the code of Yu et al. 2020 with BERT was not released",
    {
        **_one_rate(1e-4),
        "learning_rate": 3e-5,
        "batch_size": 16,
        "epochs": 20,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
    },
    "without BERT, jinlanfu/NERmultimodal has RMSprop at a rate of 0.001, batches of 10 and 25 epochs",
)

# thecharm/Mega's script, which is OpenNRE's: 300 updates of warm-up are 0.078 of the 3,830 on MNRE.
_MEGA = Recipe(
    "thecharm/Mega, after thunlp/OpenNRE",
    {
        **_one_rate(2e-5),
        "batch_size": 32,
        "epochs": 10,
        "warmup": 300 / 3830,
        "weight_decay": 0.01,
        "head_dropout": 0.5,
        "clip_norm": 0.0,
    },
    "the warm-up is 300 updates on MNRE, and the same share of the updates on other data; the rate reaches "
    "zero with the last update, not before; AdamW corrects its bias",
)

# 300 updates of warm-up are 0.039 of the 7,700 on MNRE.
_PCNN = Recipe(
    "thunlp/OpenNRE, its script for CNNs on sentences",
    {
        **_one_rate(0.1),
        "optimizer": "sgd",
        "batch_size": 160,
        "epochs": 100,
        "warmup": 300 / 7700,
        "weight_decay": 1e-5,
        "clip_norm": 0.0,
    },
    "the warm-up is 300 updates on MNRE, and the same share of the updates on other data",
)

# SGD with the rate lr / (1 + 0.05 epochs), batches of 10, and the gradient's norm clipped at 5.
_SGD = {
    "optimizer": "sgd",
    "schedule": "inverse",
    "decay": 0.05,
    "warmup": 0.0,
    "batch_size": 10,
    "weight_decay": 0.0,
    "clip_norm": 5.0,
}

_VISUALBERT = Recipe(
    "uclanlp/visualbert, fine-tuning for VQA and NLVR2",
    {
        **_one_rate(2e-5),
        "batch_size": 64,
        "epochs": 10,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
    },
    "no recipe was published for entities or relations; AdamW for BertAdam",
)

RECIPES: dict[str, Mapping[str, Recipe]] = {
    **dict.fromkeys(VARIANTS, _HMNET),
    "adapcoatt-bert-crf": {"ner": _ADAPCOATT},
    "adapcoatt-bert-crf-concat": {"ner": _ADAPCOATT},
    "umt": {"ner": _UMT, "re": replace(_UMT, values={**_UMT.values, "epochs": 12}, departs=_UMT_RELATIONS)},
    "umgf": {"ner": _UMGF, "re": _UMGF},
    "bert-crf": {"ner": _UMT},
    "bert-labels": {"ner": _UMT, "re": _MEGA},  # a control: as the system that it stands beside
    "cnn-bilstm-crf": {
        "ner": Recipe(
            "Ma and Hovy 2016, section 3",
            {
                **_SGD,
                **_one_rate(0.015),
                "momentum": 0.9,
                "epochs": 50,
            },
            "BIO for BIOES tags",
        )
    },
    "hbilstm-crf": {
        "ner": Recipe(
            "Lample et al. 2016, section 5.1, and glample/tagger",
            {**_SGD, **_one_rate(0.01), "epochs": 100},
            "batches of 10 for single sentences, a rate that falls for a constant one, BIO for BIOES tags",
        )
    },
    "ocsga": {
        "ner": Recipe(
            "softhuafei/Pytorch-implementation-for-OCSGA",
            {**_SGD, **_one_rate(0.05), "weight_decay": 1e-8, "epochs": 200, "clip_norm": 0.0},
            "the loss is a mean over the batch of 10 and theirs a sum, so that the rate is ten times theirs",
        )
    },
    "mtb": {"re": _MEGA},
    "pcnn": {"re": _PCNN},
    "pcnn-double-dropout": {"re": _PCNN},
    "visualbert": dict.fromkeys(PAPER, _VISUALBERT),
    **{name: {"re": _MEGA} for name in ("bert-sg", "bert-sg-att", "bert-sg-edges")},
    **{name: {"re": _MEGA} for name in ("mega", "mega-shuffled", "mega-unaligned")},
}
"""By system and task."""


def published_recipe(system: str, task: str) -> Recipe:
    """Return how a system was trained as published. Raises InputError where none was, or it is not known."""
    recipe = RECIPES.get(system, {}).get(task)
    if recipe is None:
        raise InputError(
            f"no recipe of {system} is published for task {task!r}; leave out --recipe to train it by "
            "[train] of run.toml"
        )
    return recipe
