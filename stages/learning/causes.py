"""What the stages that train have in common in their records: parameters, weights and outputs. Needs no torch to import."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...manifests.fingerprint import digest_file, digest_json
from ...manifests.schemas import PREDICTIONS
from ...manifests.tables import sound_digests
from ..base.arithmetic import resolve_device, resolve_precision
from ..text.encoders.files import encoder_digest, resolve_encoder
from .recipe import TrainSettings

__all__ = ["checkpoint_folder", "encoder_weights", "model_outputs", "recipe_parameters"]


def recipe_parameters(recipe: TrainSettings, *, system: str, seed: int) -> dict[str, Any]:
    """Return what of a recipe decides the trained model, with device and precision resolved, for a fingerprint."""
    values = asdict(recipe)
    device = resolve_device(values.pop("device"))
    del values["encoder"], values["tensorboard"]  # the encoder's digest is among the weights
    values["precision"] = resolve_precision(values["precision"], device)
    return {**values, "device": device.type, "system": system, "seed": seed}


def encoder_weights(recipe: TrainSettings) -> dict[str, str]:
    """Return the digest of the text encoder that a training starts from. Raises InputError or WeightsError without it."""
    return {"encoder": encoder_digest(resolve_encoder(recipe.encoder))}


def model_outputs(folder: Path, *more: str) -> dict[str, str]:
    """Return the digest of each file of a model's folder that is there; `more` names files beside those of every model."""
    found = sound_digests({"predictions.parquet": (folder / "predictions.parquet", PREDICTIONS)})
    for name in ("model.safetensors", "metrics.json", "config.json", *more):
        if (folder / name).is_file():
            found[name] = digest_file(folder / name)
    return found


def checkpoint_folder(
    work: Path, parameters: dict[str, Any], inputs: dict[str, str], weights: dict[str, str]
) -> Path:
    """Return where, below `work`, a training with these causes keeps its checkpoint: one of others is never resumed."""
    return work / digest_json({"parameters": parameters, "inputs": inputs, "weights": weights})[:16]
