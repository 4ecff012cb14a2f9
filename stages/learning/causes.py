"""What the stages that train have in common: causes, outputs, progress, scores and comparison.

Importing this needs no torch.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...manifests.errors import InputError
from ...manifests.files import read_text
from ...manifests.fingerprint import digest_file, digest_json
from ...manifests.record import StageRecord
from ...manifests.schemas import PREDICTIONS
from ...manifests.tables import sound_digests
from ...manifests.trial import Trial
from ..base.arithmetic import resolve_recorded
from ..base.stage import Progress, Rerun, changed_outputs
from ..systems.registry import SUBWORDS, SystemInfo, system_info
from ..text.encoders.files import encoder_digest, resolve_encoder
from ..text.vocabulary import VOCABULARY_FILE
from .made_by import CONFIG, output_digest
from .metrics import read_metrics
from .recipe import TrainSettings, is_later_default
from .words import vectors_digest

__all__ = [
    "MODEL_FILES",
    "checkpoint_folder",
    "compare_models",
    "model_outputs",
    "model_scores",
    "recipe_parameters",
    "start_token",
    "text_weights",
    "training_progress",
    "unread_settings",
]

# The settings that change nothing for systems on sub-words, and for those on words.
_FOR_WORDS = ("word_learning_rate", "word_dim")
_FOR_SUBWORDS = ("learning_rate", "fusion_learning_rate")

# The largest difference in F1 that rounding on another machine may make to the same training.
_F1 = 0.02


def recipe_parameters(
    recipe: TrainSettings, trial: Trial, record: StageRecord | None, negative: str | None, task: str
) -> dict[str, Any]:
    """Return everything in a recipe and a trial that decides the trained model, for a fingerprint.

    Device and precision are those that "auto" stands for. record: that of the stage's last run, which may
    hold them. negative: the negative relation of the data; None: there is none, or the task is the other one.
    task: draws of sentences are made otherwise than they once were, and those of relations are not.
    """
    values = {name: value for name, value in asdict(recipe).items() if not is_later_default(name, value)}
    values["device"], values["precision"] = resolve_recorded(recipe.device, recipe.precision, record)
    # The digests of the encoder and of the vectors are among the weights.
    unread = unread_settings(system_info(trial.system))
    for name in ("encoder", "vectors", "cuda_graphs", "tensorboard", *unread):
        values.pop(name, None)
    subset: dict[str, Any] = {"subset_seed": trial.subset_seed} if trial.draws else {}
    if trial.shots and task == "ner":
        subset["drawn"] = "nested"  # sentences were once drawn otherwise, relations always so
    subset |= {"percent": trial.percent} if trial.percent else {}
    subset |= {"natural": True} if trial.natural else {}
    # Trainings were scored with "None" before there was a choice: they stay as they are.
    scored = {"negative": negative} if negative not in (None, "None") else {}
    return {**values, **scored, "system": trial.system, "seed": trial.seed, "shots": trial.shots, **subset}


def unread_settings(info: SystemInfo) -> tuple[str, ...]:
    """Return the keys of [train] that change nothing for a system, as it reads words or sub-words."""
    return _FOR_WORDS if info.text == SUBWORDS else _FOR_SUBWORDS


def text_weights(recipe: TrainSettings, info: SystemInfo) -> dict[str, str]:
    """Return the digest of what a training of a system starts from on the side of the text.

    Raises InputError or WeightsError where there is none.
    """
    if info.text == SUBWORDS:
        return {"encoder": encoder_digest(resolve_encoder(recipe.encoder))}
    return vectors_digest(recipe)


MODEL_FILES = (
    "model.safetensors",
    CONFIG,
    "metrics.json",
    "predictions.parquet",
    "history.parquet",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    VOCABULARY_FILE,
)
"""The names of the files of a model's folder. Each system writes most of them."""


def start_token(folder: Path) -> str:
    """Return the name, in a trial, of the model that it starts from: a folder is named by its content.

    Raises InputError where the folder holds no model.
    """
    model = folder / MODEL_FILES[0]
    if not model.is_file():
        raise InputError(
            f"{folder} holds no trained model to start from; give a folder that `hmnet-pipe train` wrote"
        )
    return token_of(digest_file(model))


def token_of(digest: str) -> str:
    """Return the digits by which a trial names the model with this digest."""
    return digest[:8]


def model_outputs(folder: Path, *more: str) -> dict[str, str]:
    """Return the digest of each existing file of a model's folder.

    more: the names of files besides those of every model.
    """
    found = sound_digests({"predictions.parquet": (folder / "predictions.parquet", PREDICTIONS)})
    for name in ("model.safetensors", "metrics.json", CONFIG, VOCABULARY_FILE, *more):
        if (folder / name).is_file():
            found[name] = output_digest(folder / name)
    return found


def checkpoint_folder(work: Path, causes: StageRecord) -> Path:
    """Return the folder below `work` of the checkpoint of a training with these causes.

    A checkpoint with other causes is never resumed.
    """
    decides = {"parameters": causes.parameters, "inputs": causes.inputs, "weights": causes.weights}
    return work / digest_json(decides)[:16]


def training_progress(checkpoints: Path) -> Progress | None:
    """Return how far the training with its checkpoint there is, or None where no checkpoint says so."""
    try:
        values = json.loads(read_text(checkpoints / "progress.json"))
        epochs = {"epoch": values["epoch"], "of epochs": values["epochs"]}
        return Progress(values["step"], values["steps"], "updates", epochs)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def model_scores(folder: Path, trial: Trial) -> dict[str, Any]:
    """Return the trial and the scores of a finished training, without splits that it did not have."""
    metrics = read_metrics(folder)
    splits = {
        split: {name: round(metrics[split][name], 6) for name in ("f1", "precision", "recall")}
        for split in ("valid", "test")
        if metrics[split] is not None
    }
    named = {"system": trial.system, "seed": trial.seed, **trial.extras}
    return {**named, "best_epoch": metrics["best_epoch"], **splits}


def compare_models(
    record: StageRecord, there: Path, here: Path, outputs: dict[str, str], elsewhere: bool
) -> Rerun:
    """Compare a recorded training, its model in `there`, with the same one made again in `here`.

    outputs: the new digests. elsewhere: whether the machine or the versions differ; if not, the numbers may
    not differ either.
    """
    from safetensors.numpy import load_file

    checked = "the training"
    wrong = changed_outputs(record, outputs)
    if not wrong:
        return Rerun(record.stage, "equal", checked)
    old, new = (load_file(folder / "model.safetensors") for folder in (there, here))
    if old.keys() != new.keys() or any(old[name].shape != new[name].shape for name in old):
        return Rerun(record.stage, "different", checked, remarks=["the model has other tensors"])
    pairs = [(old[name].astype(np.float64), new[name].astype(np.float64)) for name in old]
    distances = {"weights": max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)}
    metrics = [read_metrics(folder) for folder in (there, here)]
    scores = {
        f"{split} F1": abs(metrics[0][split]["f1"] - metrics[1][split]["f1"])
        for split in ("valid", "test")
        if all(one.get(split) for one in metrics)
    }
    close = elsewhere and max(scores.values(), default=0.0) <= _F1
    remarks = [f"not as recorded: {', '.join(wrong)}"]
    return Rerun(record.stage, "close" if close else "different", checked, {**distances, **scores}, remarks)
