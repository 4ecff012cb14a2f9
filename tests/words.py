"""Small systems on words, and batches for them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import build_system
from hmnet_pipe.stages.systems.system import System
from hmnet_pipe.stages.text.encoders.words import WordTable
from hmnet_pipe.stages.text.limits import Span
from hmnet_pipe.stages.text.vectors import Vectors
from hmnet_pipe.stages.text.vocabulary import Vocabulary, Words

TEXTS = [
    ["Ada", "lives", "in", "London", "near", "the", "river"],
    ["the", "red", "cat", "sat"],
    ["Alan", "lives", "in", "the", "red", "house", "in", "London"],
]
VOCABULARY = Vocabulary.of(TEXTS)
TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
RELATIONS = ("None", "lives in", "peer")
LABELS = ("bus", "person", "traffic light")


def system_on_words(
    name: str, task: str = "ner", *, word_dim: int = 8, vectors: Vectors | None = None, **options: Any
) -> System:
    """Return a system with random weights, of float64 and in evaluation mode."""
    torch.manual_seed(3)
    table = WordTable.new(VOCABULARY, word_dim, vectors)
    labels = TAGS if task == "ner" else RELATIONS
    config = ModelConfig(name, task, labels, (), "markers", 16, table.sizes, None, options)
    model = build_system(config, table)
    if vectors is not None:
        model.take_vectors(vectors)
    return model.double().eval()


def batch_of(
    texts: Sequence[Sequence[str]],
    pairs: Sequence[tuple[Span, Span]] | None = None,
    *,
    objects: Sequence[Sequence[int]] | None = None,
    labels: Any = None,
    wider: int = 0,
    junk: int = 0,
) -> Batch:
    """Return a batch of texts.

    objects: the ids of the labels of each text's objects. wider: words and characters more than the longest
    needs. junk: what padded words hold, and the ids of absent objects.
    """
    encoded = Words(VOCABULARY).encode(texts, pairs, limit=16)
    width = max(text.words for text in encoded) + wider
    letters = max(len(ids) for text in encoded for ids in text.characters or []) + wider
    ids = torch.full((len(texts), width), junk)
    characters = torch.full((len(texts), width, letters), junk)
    mask = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, text in enumerate(encoded):
        ids[row, : text.words] = torch.tensor(text.input_ids)
        mask[row, : text.words] = True
        for place, word in enumerate(text.characters or []):
            characters[row, place] = torch.tensor([*word, *[0] * (letters - len(word))])
    spans = None if pairs is None else torch.tensor([text.spans for text in encoded])
    batch = Batch(
        ids,
        mask,
        torch.arange(width).expand(len(texts), -1),
        mask,
        None if labels is None else torch.tensor(labels),
        None,
        None,
        list(range(len(texts))),
        characters=characters,
        spans=spans,
    )
    if objects is None:
        return batch
    most = max(map(len, objects)) + wider
    found = torch.tensor([[*row, *[junk] * (most - len(row))] for row in objects]).reshape(len(texts), most)
    present = torch.tensor([[k < len(row) for k in range(most)] for row in objects]).reshape(len(texts), most)
    return replace(batch, object_labels=found, object_mask=present)


def float_weights(module: torch.nn.Module) -> Mapping[str, Any]:
    """Return a module's parameters and statistics as arrays."""
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}
