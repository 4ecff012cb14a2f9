"""Tests of differences, against enumeration, scipy and loops."""

import itertools
from time import process_time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hmnet_pipe.stages.learning.significance import (
    Counted,
    compare,
    counts_of,
    f1_of,
    holm,
    interval,
    randomisation,
)
from scipy.stats import bootstrap

Answers = npt.NDArray[Any]
"""Counts, (seeds, sentences, 3): correct, predicted, gold."""


def answers(rng: np.random.Generator, seeds: int, sentences: int, skill: float) -> Answers:
    """Return counts of a system that finds each of 0 to 3 gold mentions with probability `skill`."""
    gold = rng.integers(0, 4, sentences)
    correct = rng.binomial(gold, skill, (seeds, sentences))
    return np.stack(
        [correct, correct + rng.binomial(2, 0.2, correct.shape), np.tile(gold, (seeds, 1))], axis=-1
    )


def pair(sentences: int, seeds: int = 2, better: float = 0.0, seed: int = 0) -> tuple[Answers, Answers]:
    """Return counts of two systems on the same sentences, the first better by `better`."""
    one = answers(np.random.default_rng(seed), seeds, sentences, 0.5 + better)
    rng = np.random.default_rng(seed + 10_000)
    correct = rng.binomial(one[0, :, 2], 0.5, one.shape[:2])
    other = np.stack([correct, correct + rng.binomial(2, 0.2, correct.shape), one[..., 2]], axis=-1)
    return one, other


def by_enumeration(one: Answers, other: Answers) -> float:
    """Return the exact p-value: the share of all swaps that are at least as extreme."""

    def statistic(swapped: tuple[bool, ...]) -> float:
        mask = np.array(swapped)[None, :, None]
        totals = [np.where(mask, b, a).sum(axis=1) for a, b in ((one, other), (other, one))]
        return abs(
            float(np.mean([f1(total) for total in totals[0]]) - np.mean([f1(total) for total in totals[1]]))
        )

    observed = statistic((False,) * one.shape[1])
    found = [
        statistic(mask) >= observed - 1e-12 for mask in itertools.product((False, True), repeat=one.shape[1])
    ]
    return sum(found) / len(found)


def f1(total: Answers) -> float:
    correct, predicted, gold = total.tolist()
    precision, recall = (correct / n if n else 0.0 for n in (predicted, gold))
    return 2 * precision * recall / (precision + recall) if correct else 0.0


def test_f1_is_that_of_precision_and_recall() -> None:
    totals = np.random.default_rng(0).integers(0, 5, (200, 3))
    totals[:, 1:] = np.maximum(totals[:, 1:], totals[:, :1])
    np.testing.assert_allclose(f1_of(totals), [f1(total) for total in totals], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_ten_sentences_equal_the_full_enumeration(seed: int) -> None:
    one, other = pair(10, better=0.2, seed=seed)
    assert randomisation(one, other, trials=20_000) == pytest.approx(by_enumeration(one, other), abs=0.015)


def test_equal_answers_differ_by_nothing() -> None:
    one, _ = pair(30)
    assert randomisation(one, one) == 1.0
    assert interval(one, one) == (0.0, 0.0)


def test_the_order_of_the_systems_changes_the_sign_alone() -> None:
    one, other = pair(60, better=0.15)
    assert randomisation(one, other) == randomisation(other, one)
    low, high = interval(one, other)
    assert interval(other, one) == pytest.approx((-high, -low))
    assert randomisation(one, other) == randomisation(one, other)


def test_the_order_of_sentences_changes_nothing_but_splitting_them_does() -> None:
    one, other = pair(80, seeds=1, better=0.1, seed=3)
    order = np.random.default_rng(1).permutation(80)
    whole = randomisation(one, other, trials=40_000)
    assert randomisation(one[:, order], other[:, order], trials=40_000) == pytest.approx(whole, abs=0.01)
    # Ten rows a sentence that are all right or all wrong together say no more than one.
    tenfold = [np.repeat(each, 10, axis=1) for each in (one, other)]
    together = [10 * each for each in (one, other)]
    assert randomisation(together[0], together[1], trials=40_000) == pytest.approx(whole, abs=0.01)
    assert randomisation(tenfold[0], tenfold[1]) < whole / 3


@pytest.mark.slow
def test_under_no_difference_one_in_twenty_is_called_one() -> None:
    p_values = []
    for seed in range(1000):
        one, other = pair(60, seeds=2, seed=seed)
        p_values.append(randomisation(one, other, trials=400, seed=seed))
    assert 0.03 <= np.mean(np.array(p_values) < 0.05) <= 0.07


def test_the_interval_of_one_seed_is_scipys() -> None:
    one, other = pair(120, seeds=1, better=0.1)

    def statistic(numbers: Answers, axis: int = -1) -> Answers:
        return f1_of(one[0][numbers].sum(axis=-2)) - f1_of(other[0][numbers].sum(axis=-2))

    theirs = bootstrap(
        (np.arange(120),), statistic, method="percentile", n_resamples=10_000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert interval(one, other) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_seeds_that_disagree_widen_the_interval() -> None:
    one, other = pair(100, seeds=2, better=0.3)
    agreeing = np.stack([one[0], one[0]]), np.stack([other[0], other[0]])
    disagreeing = np.stack([one[0], other[0]]), np.stack([other[0], one[0]])
    widths = [high - low for low, high in (interval(*agreeing), interval(*disagreeing))]
    assert widths[1] > widths[0]


def test_holm_corrects_for_the_number_of_comparisons_in_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_rows_of_a_sentence_are_counted_together() -> None:
    words = [["Ada", "met", "Alan"], ["Ada", "met", "Alan"], ["Paris"]]
    relations = counts_of(
        pa.array(words),
        [["peer"], ["None"], ["in"]],
        [["peer"], ["peer"], ["None"]],
        task="re",
        negative="None",
    )
    assert relations.sentences.to_pylist() == ["Ada\x1fmet\x1fAlan", "Paris"]
    assert relations.counts.tolist() == [[1, 2, 1], [0, 0, 1]]
    tags = counts_of(pa.array([["New", "York"]]), [["B-LOC", "I-LOC"]], [["B-LOC", "O"]], task="ner")
    assert tags.counts.tolist() == [[0, 1, 1]]


def test_a_comparison_is_of_the_same_sentences() -> None:
    here = Counted(pa.array(["a", "b"]), np.array([[1, 1, 1], [0, 1, 1]]))
    for sentences in (["a"], ["a", "c"], ["a", "b", "c"]):
        there = Counted(pa.array(sentences), np.ones((len(sentences), 3), np.int64))
        with pytest.raises(ValueError, match="same sentences"):
            compare([here], [there])
    turned = Counted(here.sentences[::-1], here.counts[::-1])
    found = compare([here, turned], [here, here])
    assert (found.value, found.low, found.high, found.p, found.seeds) == (0.0, 0.0, 0.0, 1.0, 2)


def test_a_million_sentences_take_what_their_kinds_do() -> None:
    """10,000 draws of each would be 80 GB, and hours; the result is as sharp as so many make it."""
    one, other = (np.repeat(each, 10_000, axis=1) for each in pair(100, seeds=1, better=0.2))
    started = process_time()
    low, high = interval(one, other)
    assert randomisation(one, other) == pytest.approx(1 / 10_001)
    assert process_time() - started < 20
    value = float((f1_of(one.sum(axis=1)) - f1_of(other.sum(axis=1))).mean())
    assert low < value < high < low + 0.005
