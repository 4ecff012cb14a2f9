"""Small text encoders with random weights, each with its type's tokenizer trained on given texts."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel

from .families import config_of

__all__ = ["KINDS", "save_encoder"]

KINDS = {
    "roberta": "RobertaTokenizer",
    "modernbert": "PreTrainedTokenizerFast",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "DistilBertTokenizer",
}
"""The types, and the class that the published tokenizer of each names."""

_LAYERS, _PIECES = 4, 400
_NAMES = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
_BERTS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
_ROBERTAS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def save_encoder(folder: Path, kind: str, texts: Iterable[str]) -> Path:
    """Save an encoder of the type, with a tokenizer of these texts, as publishers do; return its folder."""
    special = _ROBERTAS if kind == "roberta" else _BERTS
    tokenizer = {"deberta-v2": _unigram, "distilbert": _word_pieces}.get(kind, _bytes)(list(texts), special)
    opens, closes = ((token, tokenizer.token_to_id(token)) for token in (special[0], special[2]))
    tokenizer.post_processor = processors.BertProcessing(closes, opens)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    written = {"tokenizer_class": KINDS[kind], **dict(zip(_NAMES, special, strict=True))}
    (folder / "tokenizer_config.json").write_text(json.dumps(written))
    values = {
        **config_of(kind),
        **{"n_layers" if kind == "distilbert" else "num_hidden_layers": _LAYERS},
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 160,
        "pad_token_id": tokenizer.token_to_id(special[1]),
    }
    for name, (_, number) in {"bos": opens, "cls": opens, "eos": closes, "sep": closes}.items():
        values[f"{name}_token_id"] = number  # ModernBERT's would lie beyond the vocabulary
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def _bytes(texts: list[str], special: tuple[str, ...]) -> Tokenizer:
    """Return byte-level BPE to which a word is another behind a space, and which adds none of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_PIECES, special_tokens=[*special], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _unigram(texts: list[str], special: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=_PIECES, special_tokens=[*special], unk_token=special[3], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _word_pieces(texts: list[str], special: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=special[3]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=_PIECES, special_tokens=[*special], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
