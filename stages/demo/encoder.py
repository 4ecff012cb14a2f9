"""The text encoder of the diagnostic corpora: a small BERT with random weights, and its vocabulary."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from safetensors.numpy import save_file

from ...manifests.files import make_folder, write_text

__all__ = ["write_encoder"]

_LAYERS, _WIDTH, _HEADS, _LONGEST = 4, 128, 4, 128
_DEVIATION = 0.02
_DROPOUT = 0.0
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_encoder(folder: Path, words: Iterable[str], rng: Generator) -> None:
    """Write an encoder, with random weights, that knows `words` and no others, as transformers reads it.

    Its weights are numpy's random numbers, as those of the pictures are: torch's differ between its versions.
    """
    make_folder(folder)
    pieces = {piece for word in words for piece in re.findall(r"\w+|[^\w\s]", word.lower())}
    vocabulary = [*_SPECIAL, *sorted(pieces)]
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": _WIDTH,
        "intermediate_size": 4 * _WIDTH,
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "max_position_embeddings": _LONGEST,
        "vocab_size": len(vocabulary),
        "hidden_dropout_prob": _DROPOUT,
        "attention_probs_dropout_prob": _DROPOUT,
    }
    reading = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": _LONGEST}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(folder / "tokenizer_config.json", json.dumps(reading, indent=2) + "\n")
    write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in vocabulary))
    save_file(dict(_weights(len(vocabulary), rng)), folder / "model.safetensors", {"format": "pt"})


def _weights(vocabulary: int, rng: Generator) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield the weights of a new BERT by their names in transformers, initialised as it does."""

    def normal(*shape: int) -> npt.NDArray[np.float32]:
        return (rng.standard_normal(shape) * _DEVIATION).astype(np.float32)

    def norm(name: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        yield f"{name}.weight", np.ones(_WIDTH, np.float32)
        yield f"{name}.bias", np.zeros(_WIDTH, np.float32)

    def linear(name: str, width: int, out: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        yield f"{name}.weight", normal(out, width)
        yield f"{name}.bias", np.zeros(out, np.float32)

    for name, rows in (("word", vocabulary), ("position", _LONGEST), ("token_type", 2)):
        yield f"embeddings.{name}_embeddings.weight", normal(rows, _WIDTH)
    yield from norm("embeddings.LayerNorm")
    for number in range(_LAYERS):
        layer = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{name}", _WIDTH, _WIDTH)
        yield from linear(f"{layer}.attention.output.dense", _WIDTH, _WIDTH)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", _WIDTH, 4 * _WIDTH)
        yield from linear(f"{layer}.output.dense", 4 * _WIDTH, _WIDTH)
        yield from norm(f"{layer}.output.LayerNorm")
