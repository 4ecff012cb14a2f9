"""One way to build any system."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from ...manifests.errors import InputError, WeightsError
from ..text.encoders.bert import load_encoder, load_tokenizer, longest_text, without_embedding
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


def new_system(folder: Path, config: ModelConfig, tokenizer: Any = None) -> System:
    """Return a new model on the pretrained encoder in `folder`.

    tokenizer: what reads its texts; None: the one in `folder`. The tokens that were added to it, among them
    the entity markers of relations, join the encoder's vocabulary.

    Raises InputError where max_length is above what the encoder has positions for, and WeightsError where the
    tokenizer is another encoder's.
    """
    encoder: Any = load_encoder(folder)
    tokenizer = load_tokenizer(folder) if tokenizer is None else tokenizer
    if config.max_length > (limit := longest_text(encoder)):
        raise InputError(
            f"max_length {config.max_length} is above the {limit} sub-words that the encoder {folder} has "
            "positions for"
        )
    rows = encoder.config.vocab_size
    beyond = without_embedding(tokenizer, rows)
    if foreign := [token for token in beyond if token not in tokenizer.get_added_vocab()]:
        raise WeightsError(
            f"{folder}: the tokenizer has {len(foreign)} sub-words ({foreign[0]!r}, ...) beyond the {rows} "
            "that the weights have embeddings for, so it is another encoder's; copy the encoder's own "
            "tokenizer there"
        )
    last = tokenizer.convert_tokens_to_ids(beyond[-1]) + 1 if beyond else 0
    wanted = max(rows + (len(MARKERS) if config.task == "re" else 0), last)
    if wanted > rows:
        encoder.resize_token_embeddings(wanted, mean_resizing=False)
    values = encoder.config.to_dict()
    values.pop("_name_or_path", None)  # a place on this machine, which is no part of a model
    return build_system(replace(config, encoder=values), encoder)
