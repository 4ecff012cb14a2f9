"""The folder of a trained model: whichever system its config.json names is loaded from it."""

import json
from pathlib import Path

from safetensors.torch import load_file

from ...manifests.errors import HmnetPipeError, WeightsError, in_one_line
from ...manifests.files import check_regular, read_text, reason_of
from ..base.hub import damaged_file
from .batch import ModelConfig
from .build import build_system, empty_encoder
from .system import System

__all__ = ["load_system", "model_config"]


def model_config(folder: Path) -> ModelConfig:
    """Return the configuration of the model in a folder. Raises WeightsError where there is none."""
    path = folder / "config.json"
    try:
        return _config_at(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{folder} holds no trained model ({path} is missing)") from error
    except Exception as error:  # damaged files break their readers in any way
        raise WeightsError(f"{path} is damaged ({in_one_line(error)}); train the model again") from error


def _config_at(path: Path) -> ModelConfig:
    values = json.loads(read_text(path))
    return ModelConfig(**{**values, "labels": tuple(values["labels"]), "levels": tuple(values["levels"])})


def load_system(folder: Path | str) -> System:
    """Return the model that `save_pretrained` wrote, in evaluation mode.

    Raises WeightsError where there is none.
    """
    folder = Path(folder)
    try:
        config = _config_at(folder / "config.json")
        model = build_system(config, empty_encoder(config))
        check_regular(folder / "model.safetensors")
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except FileNotFoundError as error:
        raise WeightsError(
            f"{folder} holds no trained model ({error.filename} is missing); run `hmnet-pipe train` first"
        ) from error
    except HmnetPipeError as error:
        raise type(error)(f"{folder / 'config.json'}: {error}; train the model again") from error
    except OSError as error:
        raise WeightsError(
            f"{error.filename or folder} cannot be read ({reason_of(error)}); train the model again"
        ) from error
    except Exception as error:  # damaged files break their readers in any way
        if (damaged := damaged_file(folder)) is not None:
            path, reason = damaged
            raise WeightsError(f"{path} is damaged ({reason}); train the model again") from error
        raise WeightsError(
            f"{folder} holds a model that is damaged or of another version ({in_one_line(error)}); "
            "train it again"
        ) from error
    return model.eval()
