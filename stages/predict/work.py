"""What is found in posts by one or two models, once their images are features."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Any

from seqeval.metrics.sequence_labeling import get_entities
from torch import Tensor

from ..learning.batches import Visuals
from ..learning.calibration import temperature_of
from ..learning.explanations import explanations_table
from ..learning.extras import Extra
from ..learning.opened import OpenModel
from ..learning.predictions import over_split
from ..learning.splits import Split
from ..systems.batch import Batch
from ..systems.marginals import span_types
from ..text.limits import Span
from ..text.windows import best_windows, windows_of
from .posts import Words

__all__ = ["Given", "Mention", "PairFound", "find_mentions", "find_relations", "looked_at", "pairs_of"]

_UNLIMITED = 2**31


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
    model: OpenModel,
    given: Given,
    *,
    min_score: float = 0.0,
    recall: float | None = None,
    windows: bool = True,
) -> list[tuple[list[Mention], bool]]:
    """Return the mentions of each post, in the order of the text, and whether the model read all of it.

    They are those of the best label sequence (equation 10's argmax) whose probability is at least min_score.
    recall: also those with at least this probability, most probable first, that overlap none of them.
    windows: read a text that is longer than the model reads in windows of whole words
    (stages.text.windows); otherwise its end is not read.
    """
    split = given.split(model)
    whole = [text.words == len(words) for text, words in zip(split.texts, split.tokens, strict=True)]
    found = _over(model, given, split, min_score, recall)
    if windows and not all(whole):
        long = [i for i, every in enumerate(whole) if not every]
        for i, mentions in zip(long, _in_windows(model, given, long, min_score, recall), strict=True):
            found[i], whole[i] = mentions, True
    return list(zip(found, whole, strict=True))


def _over(
    model: OpenModel, given: Given, split: Split, min_score: float, recall: float | None
) -> list[list[Mention]]:
    types = span_types(model.config.labels)
    temperature = temperature_of(model.folder)

    def each(batch: Batch) -> list[list[Mention]]:
        scored = model.model.scored(batch, temperature)
        assert scored.chain is not None
        spans = {name: scored.chain.spans(*numbers).cpu() for name, numbers in types.items()}
        found = enumerate(scored.labels)
        return [_mentions(tags, place, spans, min_score, recall) for place, tags in found]

    return given.over(model, split, each)


def _in_windows(
    model: OpenModel, given: Given, long: Sequence[int], min_score: float, recall: float | None
) -> Iterator[list[Mention]]:
    """Yield the mentions of each of the posts that are too long: each from its first word's best window."""
    plans: list[tuple[list[Span], list[int]]] = []
    parts = Given([], [], [], given.visuals, given.extras, given.batch_size)
    for i in long:
        words = given.words[i]
        [text] = model.reader.encode([words.tokens], limit=_UNLIMITED)
        # As many numbers close a text as open it: one of sub-words, none of words.
        ends = [*text.positions[1:], len(text.input_ids) - text.positions[0]]
        sizes = [max(1, end - start) for start, end in zip(text.positions, ends, strict=True)]
        framing = len(text.input_ids) - sum(sizes)
        spans = windows_of(sizes, max(1, model.config.max_length - framing))
        plans.append((spans, best_windows(sizes, spans)))
        parts = replace(
            parts,
            ids=[*parts.ids, *[given.ids[i]] * len(spans)],
            words=[*parts.words, *(words.part(span) for span in spans)],
            keys=[*parts.keys, *[given.keys[i]] * len(spans)],
        )
    found = iter(_over(model, parts, parts.split(model), min_score, recall))
    for spans, best in plans:
        kept: list[Mention] = []
        for number, ((first, _), mentions) in enumerate(zip(spans, islice(found, len(spans)), strict=True)):
            for one in mentions:
                start, end = first + one.span[0], first + one.span[1]
                if best[start] == number and (not kept or kept[-1].span[1] <= start):
                    kept.append(Mention(one.type, (start, end), one.score))
        yield kept


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
            # Beyond a text's end nothing has any probability.
            for i, j in ((scores[place] >= recall) & (scores[place] > 0)).nonzero().tolist()
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

    temperature = temperature_of(model.folder)

    def each(batch: Batch) -> list[list[float]]:
        probabilities = model.model.scored(batch, temperature).probabilities
        assert probabilities is not None
        rows: list[list[float]] = probabilities.tolist()
        return rows

    labels = model.config.labels
    return [
        PairFound(dict(zip(labels, row, strict=True)), text.words == len(words))
        for row, text, words in zip(given.over(model, split, each), split.texts, split.tokens, strict=True)
    ]


def looked_at(
    model: OpenModel, given: Given, pairs: list[tuple[int, Span, Span]] | None = None
) -> list[dict[str, Any]]:
    """Return what the model looked at in each post, or in each pair, as a row of EXPLANATIONS.

    Of a text that is longer than the model reads it is what the beginning looked at. Raises InputError where
    the system has nothing to show.
    """
    table = explanations_table(
        model.model,
        given.split(model, pairs),
        visuals=given.visuals,
        pad_id=model.reader.pad_id,
        precision=model.precision,
        batch_size=given.batch_size,
    )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def pairs_of(mentions: Sequence[Mention], most: int) -> tuple[list[tuple[int, int]], int]:
    """Return the unordered pairs of mentions by their numbers, at most `most`, and how many are left out.

    The most probable stay: those with the largest product of scores.
    """
    pairs = list(combinations(range(len(mentions)), 2))
    ranked = sorted(pairs, key=lambda pair: (-mentions[pair[0]].score * mentions[pair[1]].score, pair))
    return sorted(ranked[:most]), max(0, len(pairs) - most)
