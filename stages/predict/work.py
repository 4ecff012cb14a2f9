"""What is found in posts by one or two models, once their images are features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from seqeval.metrics.sequence_labeling import get_entities
from torch import Tensor

from ..learning.batches import Visuals
from ..learning.extras import Extra
from ..learning.opened import OpenModel
from ..learning.predictions import over_split
from ..learning.splits import Split
from ..systems.batch import Batch
from ..systems.heads import best_tags
from ..systems.marginals import chain_of, span_types
from ..text.limits import Span
from .posts import Words

__all__ = ["Given", "Mention", "PairFound", "find_mentions", "find_relations", "pairs_of"]


@dataclass(frozen=True)
class Given:
    """What a model is given of some posts, in parallel lists. keys: of their images, None where none is."""

    ids: Sequence[str]
    words: Sequence[Words]
    keys: Sequence[str | None]
    visuals: Visuals | None
    extras: tuple[Extra, ...] = ()
    batch_size: int = 64

    def split(self, model: OpenModel, pairs: list[tuple[int, Span, Span]] | None = None) -> Split:
        """Return the posts as a split, or the pairs: each the number of its post, with head and tail."""
        numbers = range(len(self.ids)) if pairs is None else [number for number, _, _ in pairs]
        split = Split(
            "posts",
            ids=[self.ids[i] for i in numbers],
            tokens=[self.words[i].tokens for i in numbers],
            gold=[[] for _ in numbers],
            groups=[[] for _ in numbers],
            image_keys=[self.keys[i] for i in numbers],
            pairs=None if pairs is None else [(head, tail) for _, head, tail in pairs],
        ).encoded(model.reader, model.config.max_length)
        return replace(split, extras=self.extras)

    def over(self, model: OpenModel, split: Split, each: Any) -> list[Any]:
        return over_split(
            model.model,
            split,
            each,
            visuals=self.visuals,
            pad_id=model.reader.pad_id,
            precision=model.precision,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True)
class Mention:
    """A mention: its type, its half-open range of words, and the probability of exactly it."""

    type: str
    span: Span
    score: float


@dataclass(frozen=True)
class PairFound:
    """What a model says of a pair: each relation's probability, by its name."""

    probabilities: dict[str, float]
    whole: bool


def find_mentions(
    model: OpenModel, given: Given, *, min_score: float = 0.0, recall: float | None = None
) -> list[tuple[list[Mention], bool]]:
    """Return the mentions of each post, in the order of the text, and whether the model read all of it.

    They are those of the best label sequence (equation 10's argmax) whose probability is at least min_score.
    recall: also those with at least this probability, most probable first, that overlap none of them.
    """
    split = given.split(model)
    system: Any = getattr(model.model, "system", model.model)
    types = span_types(model.config.labels)

    def each(batch: Batch) -> list[list[Mention]]:
        with torch.inference_mode():
            emissions: Tensor = model.model(batch)
        paths = best_tags(system.crf, emissions, batch.position_mask)
        tags = [[model.config.labels[i] for i in path] for path in paths]
        chain = chain_of(system.crf, emissions.float(), batch.position_mask)
        spans = {name: chain.spans(*numbers).cpu() for name, numbers in types.items()}
        return [_mentions(path, place, spans, min_score, recall) for place, path in enumerate(tags)]

    whole = [text.words == len(words) for text, words in zip(split.texts, split.tokens, strict=True)]
    return list(zip(given.over(model, split, each), whole, strict=True))


def _mentions(
    tags: Sequence[str], place: int, spans: dict[str, Tensor], min_score: float, recall: float | None
) -> list[Mention]:
    found = [
        Mention(name, (start, last + 1), float(spans[name][place, start, last]))
        for name, start, last in get_entities(list(tags))
    ]
    kept = [one for one in found if one.score >= min_score]
    if recall is not None:
        others = [
            Mention(name, (i, j + 1), float(scores[place, i, j]))
            for name, scores in spans.items()
            for i, j in (scores[place] >= recall).nonzero().tolist()
        ]
        for one in sorted(others, key=lambda one: (-one.score, one.span)):
            if all(one.span[1] <= other.span[0] or other.span[1] <= one.span[0] for other in kept):
                kept.append(one)
    return sorted(kept, key=lambda one: one.span)


def find_relations(model: OpenModel, given: Given, pairs: list[tuple[int, Span, Span]]) -> list[PairFound]:
    """Return what the model says of each pair: the number of its post, and the words of head and tail."""
    if not pairs:
        return []
    split = given.split(model, pairs)

    def each(batch: Batch) -> list[list[float]]:
        with torch.inference_mode():
            logits: Tensor = model.model(batch)
        rows: list[list[float]] = logits.double().softmax(dim=-1).tolist()
        return rows

    labels = model.config.labels
    return [
        PairFound(dict(zip(labels, row, strict=True)), text.words == len(words))
        for row, text, words in zip(given.over(model, split, each), split.texts, split.tokens, strict=True)
    ]


def pairs_of(mentions: Sequence[Mention], most: int) -> tuple[list[tuple[int, int]], int]:
    """Return the unordered pairs of mentions by their numbers, at most `most`, and how many are left out.

    The most probable stay: those with the largest product of scores.
    """
    pairs = list(combinations(range(len(mentions)), 2))
    ranked = sorted(pairs, key=lambda pair: (-mentions[pair[0]].score * mentions[pair[1]].score, pair))
    return sorted(ranked[:most]), max(0, len(pairs) - most)
