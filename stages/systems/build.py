"""One way to build any system."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from ...manifests.errors import InputError, WeightsError
from ..text.encoders.bert import longest_text, without_embedding
from ..text.encoders.words import WORD_TABLE, WordTable
from ..text.limits import MARKERS
from ..text.reader import TextReader
from ..text.subwords import Subwords
from ..text.vectors import Vectors
from ..text.vocabulary import VOCABULARY_FILE, Words
from .batch import ModelConfig
from .registry import system_info
from .system import System

__all__ = ["build_system", "empty_encoder", "new_system", "reader_of"]

_SHORTEST_TEXT = 3  # one sub-word between the two that frame a text


def build_system(config: ModelConfig, encoder: nn.Module) -> System:
    """Return the system that `config` names, on this encoder, with random weights in its own parts.

    Raises InputError for an unknown system.
    """
    return _class_of(config)(config, encoder)


def _class_of(config: ModelConfig) -> type[System]:
    module, name = system_info(config.system).build.split(":")
    found: type[System] = getattr(import_module(f".{module}", __package__), name)
    return found


def empty_encoder(config: ModelConfig) -> nn.Module:
    """Return the text encoder of a model with random weights, into which to load a state dict.

    Raises WeightsError where the model's texts are longer or shorter than it can read.
    """
    if config.encoder["model_type"] == WORD_TABLE:
        return WordTable(config.encoder)
    encoder = _class_of(config).unfilled(config)
    if not _SHORTEST_TEXT <= config.max_length <= longest_text(encoder):
        raise WeightsError(
            f"max_length is {config.max_length}, and the model reads texts of {_SHORTEST_TEXT} to "
            f"{longest_text(encoder)} sub-words"
        )
    return encoder


def reader_of(config: ModelConfig, folder: Path) -> TextReader:
    """Return what reads the texts of the model in `folder`, which has this configuration.

    Raises WeightsError where it is not there, or not the one that the model was trained with.
    """
    if config.encoder["model_type"] == WORD_TABLE:
        words = Words.of_model(folder)
        if words.vocabulary.digest != config.encoder["vocabulary"]:
            raise WeightsError(
                f"{folder / VOCABULARY_FILE} is not the vocabulary that the model was trained with; train it "
                "again"
            )
        return words
    reader = Subwords.of_model(folder)
    rows = config.encoder["vocab_size"]
    if beyond := without_embedding(reader.tokenizer, rows):
        raise WeightsError(
            f"{folder / 'tokenizer'} has {len(beyond)} sub-words ({beyond[0]!r}, ...) beyond the {rows} that "
            "the model has embeddings for, so it is not the tokenizer that it was trained with; train it "
            "again"
        )
    return reader


def new_system(
    folder: Path | None,
    config: ModelConfig,
    reader: TextReader | None = None,
    vectors: Vectors | None = None,
) -> System:
    """Return a new model on the pretrained encoder in `folder`, or on a table of the reader's words.

    folder: None for a system on words. reader: what reads its texts; None: the tokenizer in `folder`. The
    tokens that were added to it, among them the entity markers of relations, join the encoder's vocabulary.
    vectors: those that words start from; None: they are learned.

    Raises InputError where max_length is above what the encoder has positions for, and WeightsError where the
    tokenizer is another encoder's.
    """
    if isinstance(reader, Words):
        table = WordTable.new(reader.vocabulary, config.encoder["word_dim"], vectors)
        model = build_system(replace(config, encoder=table.sizes), table)
        if vectors is not None:
            model.take_vectors(vectors)
        return model
    assert folder is not None
    encoder: Any = _class_of(config).pretrained(folder, config)
    reader = reader or Subwords.of_encoder(folder, "ner")
    assert isinstance(reader, Subwords)
    tokenizer = reader.tokenizer
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
