"""Which pairs a model of relations is asked about, and which of its answers are kept."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ...manifests.errors import InputError
from ...stages.predict.posts import Post, Words
from ...stages.predict.results import Relation
from ...stages.predict.work import Mention, PairFound, pairs_of
from ...stages.text.limits import Span

__all__ = ["Asked", "allowed", "answers", "questions", "types_of"]

# MNRE's relations say the types of their arguments, /per/loc/place_of_birth, and other data's may.
_TYPED = re.compile(r"/(\w+)/(\w+)/.+")


@dataclass(frozen=True)
class Asked:
    """A pair that a model of relations is asked about: the words of its head and tail.

    numbers: of the two mentions, or None where the pair was given.
    """

    head: Span
    tail: Span
    numbers: tuple[int, int] | None = None


def questions(
    post: Post, words: Words, mentions: Sequence[Mention] | None, most: int
) -> tuple[list[Asked], int]:
    """Return the pairs of a post to ask about, and how many are left out.

    It is the pair that came with the post, or each of at most `most` pairs of its mentions in both orders:
    training pairs are annotated in one order, and which it is depends on the relation. Raises InputError
    where the post has neither.
    """
    if post.head is not None and post.tail is not None:
        return [Asked(words.covering("head", post.head), words.covering("tail", post.tail))], 0
    if mentions is None:
        raise InputError(
            "it has no head and tail for a model of relations; give them, or a model of entities"
        )
    chosen, left_out = pairs_of(mentions, most)
    orders = [order for one, other in chosen for order in ((one, other), (other, one))]
    return [Asked(mentions[head].span, mentions[tail].span, (head, tail)) for head, tail in orders], left_out


def answers(
    asked: Sequence[Asked],
    found: Sequence[PairFound],
    words: Words,
    mentions: Sequence[Mention],
    negative: str | None,
    *,
    types: bool,
    alternatives: int = 0,
) -> list[Relation]:
    """Return the relations of a post from what the model says of its pairs.

    A given pair has one relation, the negative one included. Of the two orders of a pair of mentions the one
    that is less likely to be negative counts, and it has a relation unless that is the negative one.
    alternatives: how many other relations of each pair are named.
    """
    relations: list[Relation] = []
    best: dict[frozenset[int], Relation] = {}
    for pair, said in zip(asked, found, strict=True):
        if pair.numbers is None:
            spans = words.characters(pair.head), words.characters(pair.tail)
            relations.append(_relation(said.probabilities, negative, *spans, alternatives=alternatives))
            continue
        two = [mentions[number] for number in pair.numbers]
        probabilities: Mapping[str, float] = said.probabilities
        if types:
            probabilities = allowed(probabilities, negative, two[0].type, two[1].type)
        factors = [one.score for one in two]
        relation = _relation(
            probabilities, negative, *pair.numbers, factors=factors, alternatives=alternatives
        )
        known = best.get(frozenset(pair.numbers))
        if known is None or (relation.negative or 0) < (known.negative or 0):
            best[frozenset(pair.numbers)] = relation
    return [*relations, *(relation for relation in best.values() if relation.relation != negative)]


def allowed(
    probabilities: Mapping[str, float], negative: str | None, head: str, tail: str
) -> Mapping[str, float]:
    """Return the probabilities of the relations whose names allow these types, as shares of their sum.

    A type "" is not known, and fits. All are allowed where some relation's name does not say its types.
    """
    names = {name: types_of(name) for name in probabilities if name != negative}
    if not all(names.values()):
        return probabilities
    types = head.casefold(), tail.casefold()
    kept = {
        name: value for name, value in probabilities.items() if name == negative or _fit(names[name], types)
    }
    total = sum(kept.values())
    return {name: value / total for name, value in kept.items()} if total > 0 else probabilities


def _fit(named: tuple[str, str] | None, types: tuple[str, str]) -> bool:
    return named is not None and all(one in (other, "") for one, other in zip(types, named, strict=True))


def types_of(relation: str) -> tuple[str, str] | None:
    """Return the types of head and tail that the name of a relation says, in small letters, or None."""
    match = _TYPED.fullmatch(relation)
    return None if match is None else (match[1].casefold(), match[2].casefold())


def _relation(
    probabilities: Mapping[str, float],
    negative: str | None,
    head: int | Span,
    tail: int | Span,
    factors: Sequence[float] = (),
    *,
    alternatives: int = 0,
) -> Relation:
    ranked = sorted(probabilities, key=lambda name: -probabilities[name])
    scores = {name: prod((*factors, probabilities[name])) for name in ranked[: 1 + alternatives]}
    name, *others = scores
    none = None if negative is None else probabilities.get(negative)
    every = (*factors, probabilities[name])
    named = tuple((other, scores[other]) for other in others)
    return Relation(name, head, tail, scores[name], every, none, named)
