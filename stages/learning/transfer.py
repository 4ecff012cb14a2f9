"""Training that starts from a trained model: everything goes over but the classifier and the CRF (B.3).

The model may be of the other task or of other data. Optimizer, schedule, classifier and CRF are new; the text
encoder goes over with the rows of the entity markers, and so do projections, gates, prefixes and graphs.
"""

from pathlib import Path
from typing import Any

import torch

from ...cache.spec import FeatureSpec
from ...manifests.errors import InputError, StageError
from ...manifests.fingerprint import digest_json
from ...manifests.schemas import PREDICTIONS
from ...manifests.tables import read_table
from ..systems.batch import ModelConfig
from ..systems.folder import load_system, model_config
from ..systems.registry import SUBWORDS, system_info
from ..systems.system import System
from ..text.limits import MARKERS

__all__ = ["kept_options", "source_of", "take_over"]

# The vocabularies whose tables go over: their rows keep their meaning.
_VOCABULARIES = ("object_labels", "predicates")
_EMBEDDINGS = "word_embeddings.weight"


def kept_options(start: Path) -> dict[str, Any]:
    """Return the options of a model that a training from it keeps. Raises WeightsError where it is none."""
    options = model_config(start).options
    return {name: options[name] for name in _VOCABULARIES if name in options}


def source_of(start: Path) -> str:
    """Return what tables call the model that a training starts from, as in `ner-3fa9`: its task, and data.

    The digits are of the test split that it was scored on, or of its labels, where its predictions are gone.
    """
    config = model_config(start)
    data: Any = config.labels
    if (path := start / "predictions.parquet").is_file():
        table = read_table(path, PREDICTIONS, columns=["tokens", "gold"])
        data = [table.column(name).to_pylist() for name in ("tokens", "gold")]
    return f"{config.task}-{digest_json(data)[:4]}"


@torch.no_grad()
def take_over(model: System, start: Path) -> None:
    """Copy the weights of the model in `start` into a new one, all but those of its task.

    A new model that has more sub-words, the entity markers, keeps its own rows of these. The state of torch's
    generator stays, so that head and dropout are those of a training without a start. Raises InputError or
    StageError where the model is of another system, or was trained on other features or another encoder.
    """
    own = model.config
    if system_info(own.system).text != SUBWORDS:
        raise InputError(
            f"--start: {own.system} has a vocabulary of its own data, which other words do not fit; train it "
            "without --start"
        )
    with torch.random.fork_rng(devices=[]):
        source = load_system(start)
    if source.config.system != own.system:
        raise InputError(
            f"--start: {start} is a model of {source.config.system}, not of {own.system}; give one of the "
            "same system"
        )
    if _seen(source.config) != _seen(own):
        raise StageError(
            f"--start: {start} was trained on other features of images than those of this run; extract both "
            "alike, and train it again"
        )
    if source.config.encoder["model_type"] != own.encoder["model_type"]:
        raise StageError(
            f"--start: {start} has an encoder of type {source.config.encoder['model_type']}, and the new "
            f"model one of type {own.encoder['model_type']}; train with the encoder of that model"
        )
    weights = model.state_dict()  # which shares its memory with the model
    for name, value in source.state_dict().items():
        if source.is_head(name):
            continue
        there = weights.get(name)
        if there is not None and name.endswith(_EMBEDDINGS) and len(there) == len(value) + len(MARKERS):
            there = there[: len(value)]
        if there is None or there.shape != value.shape:
            raise StageError(
                f"--start: {start} has {name} of the shape {tuple(value.shape)}, and the new model "
                f"{'has none' if there is None else tuple(there.shape)}; train with the encoder and the "
                "settings of that model"
            )
        there.copy_(value)


def _seen(config: ModelConfig) -> Any:
    """Return what a model sees of an image; how features are stored does not matter."""
    if config.features is None:
        return None
    values = FeatureSpec.from_json(config.features).to_json()
    return {name: value for name, value in values.items() if name not in ("dtype", "precision")}
