"""One way to build any system."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from ...manifests.errors import InputError
from ..text.encoders.bert import load_encoder, longest_text
from ..text.limits import MARKERS
from .batch import ModelConfig
from .registry import system_info
from .system import System

__all__ = ["build_system", "new_system"]


def build_system(config: ModelConfig, encoder: nn.Module) -> System:
    """Return the system that `config` names, on this encoder, with random weights in its own parts.

    Raises InputError for an unknown system.
    """
    module, name = system_info(config.system).build.split(":")
    built: System = getattr(import_module(f".{module}", __package__), name)(config, encoder)
    return built


def new_system(folder: Path, config: ModelConfig) -> System:
    """Return a new model on the pretrained encoder in `folder`.

    For relations the entity markers join its vocabulary.

    Raises InputError where max_length is above what the encoder has positions for.
    """
    encoder: Any = load_encoder(folder)
    if config.max_length > (limit := longest_text(encoder)):
        raise InputError(
            f"max_length {config.max_length} is above the {limit} sub-words that the encoder {folder} has "
            "positions for"
        )
    if config.task == "re":
        encoder.resize_token_embeddings(encoder.config.vocab_size + len(MARKERS), mean_resizing=False)
    values = encoder.config.to_dict()
    values.pop("_name_or_path", None)  # a place on this machine, which is no part of a model
    return build_system(replace(config, encoder=values), encoder)
