"""What is found in posts by one or two models, once their images are features."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Any

import torch
from torch import Tensor

from ..learning.batches import Visuals
from ..learning.calibration import entity_scores
from ..learning.explanations import explanations_table
from ..learning.extras import Extra
from ..learning.opened import OpenModel
from ..learning.predictions import over_split
from ..learning.splits import Split
from ..systems.batch import Batch
from ..systems.marginals import Chain, span_types
from ..text.limits import Span
from ..text.windows import best_windows, windows_of
from .posts import Words

__all__ = [
    "OUTSIDE",
    "Given",
    "Mention",
    "PairFound",
    "PostFound",
    "Wanted",
    "find_mentions",
    "find_relations",
    "looked_at",
    "pairs_of",
]

OUTSIDE = "O"
"""The tag of a word that is of no mention."""

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
    """A mention: its type, its half-open range of words, and the probability of exactly it.

    others: the most probable other readings of its words, where they were asked for: mentions that share a
    word with it, and OUTSIDE, that its words are of none.
    """

    type: str
    span: Span
    score: float
    others: tuple["Mention", ...] = ()

    def moved(self, words: int) -> "Mention":
        """Return it as a mention of a text in which its own begins with this word."""
        start, end = self.span
        others = tuple(other.moved(words) for other in self.others)
        return replace(self, span=(words + start, words + end), others=others)


@dataclass(frozen=True)
class PostFound:
    """What a model finds in a post: mentions in the order of the text.

    types: of each word that was read, the probability of being of a mention of each type, and OUTSIDE of
    none, where they were asked for. whole: whether the model read the whole text.
    """

    mentions: list[Mention]
    types: list[dict[str, float]]
    whole: bool = True


@dataclass(frozen=True)
class Wanted:
    """What is wanted of the mentions besides those of the best label sequence (equation 10's argmax).

    min_score: of these, only those that have at least this probability. recall: also those with at least this
    probability, most probable first, that overlap none of them. alternatives: the number of other readings of
    each. types: whether the types of each word are wanted.
    """

    min_score: float = 0.0
    recall: float | None = None
    alternatives: int = 0
    types: bool = False


@dataclass(frozen=True)
class PairFound:
    """What a model says of a pair: each relation's probability, by its name."""

    probabilities: dict[str, float]
    whole: bool


def find_mentions(
    model: OpenModel, given: Given, wanted: Wanted = Wanted(), *, windows: bool = True
) -> list[PostFound]:
    """Return what a model of entities finds in each post.

    windows: read a text that is longer than the model reads in windows of whole words
    (stages.text.windows); otherwise its end is not read.
    """
    split = given.split(model)
    found = [
        replace(one, whole=text.words == len(words))
        for one, text, words in zip(
            _over(model, given, split, wanted), split.texts, split.tokens, strict=True
        )
    ]
    if windows and (long := [i for i, one in enumerate(found) if not one.whole]):
        for i, one in zip(long, _in_windows(model, given, long, wanted), strict=True):
            found[i] = one
    return found


def _over(model: OpenModel, given: Given, split: Split, wanted: Wanted) -> list[PostFound]:
    names = model.config.labels
    types = span_types(names)

    def each(batch: Batch) -> list[PostFound]:
        scored = model.model.scored(batch, model.temperature)
        assert scored.chain is not None
        best = entity_scores(scored.chain, scored.labels, names)
        spans: dict[str, Tensor] = {}
        if wanted.recall is not None or wanted.alternatives:
            spans = {name: scored.chain.spans(*numbers).cpu() for name, numbers in types.items()}
        tags = scored.chain.tags().cpu() if wanted.types else None
        found = []
        for place, row in enumerate(best):
            mentions = [Mention(kind, (first, last + 1), score) for (kind, first, last), score in row]
            mentions = [one for one in mentions if one.score >= wanted.min_score]
            own = {name: scores[place] for name, scores in spans.items()}
            if wanted.recall is not None:
                mentions = _with_others(mentions, own, wanted.recall)
            if wanted.alternatives and mentions:
                outside = _outside(scored.chain, names.index(OUTSIDE), place, mentions)
                mentions = [
                    replace(one, others=_readings(one, own, free, wanted.alternatives))
                    for one, free in zip(mentions, outside, strict=True)
                ]
            count = len(scored.labels[place])
            of_words = [] if tags is None else _of_words(tags[place, :count], names, types)
            found.append(PostFound(mentions, of_words))
        return found

    return given.over(model, split, each)


def _in_windows(model: OpenModel, given: Given, long: Sequence[int], wanted: Wanted) -> Iterator[PostFound]:
    """Yield what is found in each of the posts that are too long, of each word from its best window.

    A mention is of its first word's.
    """
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
    found = iter(_over(model, parts, parts.split(model), wanted))
    for spans, best in plans:
        own = list(islice(found, len(spans)))
        kept: list[Mention] = []
        for number, ((first, _), one) in enumerate(zip(spans, own, strict=True)):
            for mention in (mention.moved(first) for mention in one.mentions):
                start = mention.span[0]
                if best[start] == number and (not kept or kept[-1].span[1] <= start):
                    kept.append(mention)
        of_words = []
        if wanted.types:
            of_words = [own[number].types[word - spans[number][0]] for word, number in enumerate(best)]
        yield PostFound(kept, of_words)


def _with_others(mentions: Sequence[Mention], spans: Mapping[str, Tensor], recall: float) -> list[Mention]:
    """Return the mentions and those with at least this probability that overlap none of them.

    spans: of each type, (T, T), the probability of exactly the words of a row's number to a column's.
    """
    kept = list(mentions)
    others = [
        Mention(name, (i, j + 1), float(scores[i, j]))
        for name, scores in spans.items()
        # Beyond a text's end nothing has any probability.
        for i, j in ((scores >= recall) & (scores > 0)).nonzero().tolist()
    ]
    for one in sorted(others, key=lambda one: (-one.score, one.span)):
        if all(one.span[1] <= other.span[0] or other.span[1] <= one.span[0] for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.span)


def _outside(chain: Chain, tag: int, place: int, mentions: Sequence[Mention]) -> list[float]:
    """Return the probability that the words of each mention of a text are of none."""
    spans = [(place, one.span[0], one.span[1] - 1) for one in mentions]
    found: list[float] = chain.throughout(tag, *torch.tensor(spans, device=chain.total.device).T).tolist()
    return found


def _readings(
    mention: Mention, spans: Mapping[str, Tensor], outside: float, most: int
) -> tuple[Mention, ...]:
    """Return the `most` most probable readings of a mention's words besides it. spans: as in `_with_others`.

    outside: the probability that its words are of no mention.
    """
    start, end = mention.span
    found = [Mention(OUTSIDE, mention.span, outside)]
    for name, scores in spans.items():
        sharing = scores[:end, start:]  # begin before its end, and end behind its start
        best = sharing.flatten().topk(min(most + 1, sharing.numel()))
        for score, number in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            first, last = divmod(number, sharing.shape[1])
            found.append(Mention(name, (first, start + last + 1), score))
    others = (one for one in found if one.score > 0 and (one.type, one.span) != (mention.type, mention.span))
    return tuple(sorted(others, key=lambda one: (-one.score, one.span, one.type))[:most])


def _of_words(
    tags: Tensor, names: Sequence[str], types: Mapping[str, tuple[int, int | None]]
) -> list[dict[str, float]]:
    """Return the probability of each type, and of none, of each word. tags: of each tag of it, (T, K)."""
    columns = {OUTSIDE: tags[:, names.index(OUTSIDE)]}
    for name, numbers in types.items():
        columns[name] = tags[:, [number for number in numbers if number is not None]].sum(dim=1)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def find_relations(model: OpenModel, given: Given, pairs: list[tuple[int, Span, Span]]) -> list[PairFound]:
    """Return what the model says of each pair: the number of its post, and the words of head and tail."""
    if not pairs:
        return []
    split = given.split(model, pairs)

    def each(batch: Batch) -> list[list[float]]:
        probabilities = model.model.scored(batch, model.temperature).probabilities
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
