"""The folder of a trained model: whichever system its config.json names is loaded from it."""

import json
from pathlib import Path

from safetensors.torch import load_file

from ...manifests.errors import HmnetPipeError, WeightsError, in_one_line
from ..text.encoders.bert import encoder_from_config, longest_text
from .batch import ModelConfig
from .build import build_system
from .system import System

__all__ = ["load_system"]

_SHORTEST_TEXT = 3  # one sub-word between the two that frame a text


def load_system(folder: Path | str) -> System:
    """Return the model that `save_pretrained` wrote, in evaluation mode.

    Raises WeightsError where there is none.
    """
    folder = Path(folder)
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = ModelConfig(
            **{**values, "labels": tuple(values["labels"]), "levels": tuple(values["levels"])}
        )
        encoder = encoder_from_config(config.encoder)
        if not _SHORTEST_TEXT <= config.max_length <= longest_text(encoder):
            raise WeightsError(
                f"{folder / 'config.json'} has max_length {config.max_length}, and the model reads texts of "
                f"{_SHORTEST_TEXT} to {longest_text(encoder)} sub-words; train the model again"
            )
        model = build_system(config, encoder)
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except FileNotFoundError as error:
        raise WeightsError(
            f"{folder} holds no trained model ({error.filename} is missing); run `hmnet-pipe train` first"
        ) from error
    except HmnetPipeError:
        raise
    except Exception as error:  # damaged files break their readers in any way
        raise WeightsError(
            f"{folder} holds a model that is damaged or of another version ({in_one_line(error)}); "
            "train it again"
        ) from error
    return model.eval()
