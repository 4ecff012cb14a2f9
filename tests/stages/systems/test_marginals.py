"""Probabilities of tags and spans, against the enumeration of all label sequences."""

import itertools
import math

import pytest
import torch
from hmnet_pipe.stages.systems.heads import best_tags, bio_crf
from hmnet_pipe.stages.systems.marginals import chain_of, span_types
from torch import Tensor
from torchcrf import CRF

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
LENGTHS = (1, 2, 4, 5)


def batch_of(scale: float, seed: int = 0, tags: tuple[str, ...] = TAGS) -> tuple[CRF, Tensor, Tensor]:
    """Return a random CRF, and emissions of texts of LENGTHS with anything beyond their ends."""
    generator = torch.Generator().manual_seed(seed)
    crf = bio_crf(tags).double()
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    emissions = torch.randn(len(LENGTHS), max(LENGTHS), len(tags), generator=generator, dtype=torch.float64)
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    return crf, torch.where(mask[..., None], scale * emissions, 1e3), mask


def probabilities_of_sequences(crf: CRF, emissions: Tensor) -> dict[tuple[int, ...], float]:
    """Return the probability of every sequence of tags of one text, by enumeration."""
    start, transitions, end = (
        value.tolist() for value in (crf.start_transitions, crf.transitions, crf.end_transitions)
    )
    rows = emissions.tolist()
    scores = {}
    for path in itertools.product(range(len(rows[0])), repeat=len(rows)):
        score = start[path[0]] + end[path[-1]] + sum(row[tag] for row, tag in zip(rows, path, strict=True))
        scores[path] = score + sum(transitions[a][b] for a, b in itertools.pairwise(path))
    most = max(scores.values())
    total = math.fsum(math.exp(score - most) for score in scores.values())
    return {path: math.exp(score - most) / total for path, score in scores.items()}


@pytest.mark.parametrize("scale", [0.3, 2.0, 12.0])
def test_probabilities_of_tags_are_those_of_the_enumeration(scale: float) -> None:
    crf, emissions, mask = batch_of(scale)
    found = chain_of(crf, emissions, mask).tags()
    for text, length in enumerate(LENGTHS):
        expected = torch.zeros(length, len(TAGS), dtype=torch.float64)
        for path, probability in probabilities_of_sequences(crf, emissions[text, :length]).items():
            for word, tag in enumerate(path):
                expected[word, tag] += probability
        torch.testing.assert_close(found[text, :length], expected, rtol=0, atol=1e-9)
        assert not found[text, length:].any()


@pytest.mark.parametrize("scale", [0.3, 2.0, 12.0])
@pytest.mark.parametrize("tags", [TAGS, ("O", "B-LOC", "B-PER", "I-PER")])
def test_probabilities_of_spans_are_those_of_the_enumeration(scale: float, tags: tuple[str, ...]) -> None:
    crf, emissions, mask = batch_of(scale, tags=tags)
    chain = chain_of(crf, emissions, mask)
    for begin, inside in span_types(tags).values():
        found = chain.spans(begin, inside)
        expected = torch.zeros_like(found)
        for text, length in enumerate(LENGTHS):
            for path, probability in probabilities_of_sequences(crf, emissions[text, :length]).items():
                for first in range(length):
                    if path[first] != begin:
                        continue
                    last = first
                    while last + 1 < length and path[last + 1] == inside:
                        last += 1
                    expected[text, first, last] += probability
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_some_spans_have_the_probabilities_of_all_spans_to_the_last_bit() -> None:
    crf, emissions, mask = batch_of(3.0)
    chain = chain_of(crf, emissions, mask)
    for begin, inside in (*span_types(TAGS).values(), (1, None)):
        every = chain.spans(begin, inside)
        text, first, last = places = every.nonzero().T
        assert torch.equal(chain.exactly(begin, inside, *places), every[text, first, last])


@pytest.mark.parametrize("scale", [0.3, 2.0, 12.0])
def test_probabilities_of_one_tag_throughout_are_those_of_the_enumeration(scale: float) -> None:
    crf, emissions, mask = batch_of(scale)
    chain = chain_of(crf, emissions, mask)
    for text, length in enumerate(LENGTHS):
        sequences = probabilities_of_sequences(crf, emissions[text, :length])
        for first, last in itertools.combinations_with_replacement(range(length), 2):
            place = (torch.tensor(number) for number in (text, first, last))
            expected = sum(value for path, value in sequences.items() if {*path[first : last + 1]} == {0})
            assert chain.throughout(0, *place).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scale", [0.3, 2.0, 12.0])
def test_likelihoods_are_those_of_the_enumeration(scale: float) -> None:
    crf, emissions, mask = batch_of(scale)
    chain = chain_of(crf, emissions, mask)
    tags = torch.tensor(best_tags(crf, emissions, mask)[-1]).expand(mask.shape)
    found = chain.likelihoods(tags)
    for text, length in enumerate(LENGTHS):
        sequences = probabilities_of_sequences(crf, emissions[text, :length])
        expected = sequences[tuple(tags[text, :length].tolist())]
        assert expected > 0
        assert found[text].exp().item() == pytest.approx(expected, rel=1e-9)


def test_a_temperature_divides_every_score() -> None:
    crf, emissions, mask = batch_of(3.0)
    cooled = bio_crf(TAGS).double()
    with torch.no_grad():
        for parameter, value in zip(cooled.parameters(), crf.parameters(), strict=True):
            parameter.copy_(value / 1.7)
    expected = chain_of(cooled, emissions / 1.7, mask)
    for found in (chain_of(crf, emissions, mask, 1.7), chain_of(crf, emissions, mask).at(1.7)):
        torch.testing.assert_close(found.tags(), expected.tags(), rtol=0, atol=1e-9)
        for begin, inside in span_types(TAGS).values():
            spans = found.spans(begin, inside)
            torch.testing.assert_close(spans, expected.spans(begin, inside), rtol=0, atol=1e-9)


def test_probabilities_of_tags_are_the_gradient_of_the_sum_over_sequences() -> None:
    crf, emissions, mask = batch_of(2.0)
    emissions.requires_grad_()
    tags = torch.zeros(mask.shape, dtype=torch.long)
    likelihood = crf(emissions, tags, mask=mask, reduction="sum")
    of_path = torch.nn.functional.one_hot(tags, len(TAGS)) * mask[..., None]
    (gradient,) = torch.autograd.grad(-likelihood, emissions)
    found = chain_of(crf, emissions, mask).tags()
    torch.testing.assert_close(found, gradient + of_path, rtol=0, atol=1e-9)


def test_a_words_tags_sum_to_1_and_spans_of_a_beginning_to_its_probability() -> None:
    crf, emissions, mask = batch_of(3.0)
    chain = chain_of(crf, emissions, mask)
    tags = chain.tags()
    torch.testing.assert_close(tags.sum(dim=-1), mask.double(), rtol=0, atol=1e-12)
    for begin, inside in span_types(TAGS).values():
        torch.testing.assert_close(
            chain.spans(begin, inside).sum(dim=-1), tags[..., begin], rtol=0, atol=1e-12
        )


def test_a_sure_models_best_spans_are_certain_and_single_precision_loses_little() -> None:
    crf, emissions, mask = batch_of(30.0, seed=2)
    best = best_tags(crf, emissions, mask)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        chain = chain_of(crf.to(torch.float32) if dtype != torch.float64 else crf, emissions.to(dtype), mask)
        assert chain.total.dtype == torch.float64
        for text, path in enumerate(best):
            for word, tag in enumerate(path):
                assert chain.tags()[text, word, tag] > 0.5


def test_types_are_those_of_the_tags() -> None:
    assert span_types(TAGS) == {"LOC": (1, 2), "PER": (3, 4)}
    assert span_types(("O", "B-X")) == {"X": (1, None)}
