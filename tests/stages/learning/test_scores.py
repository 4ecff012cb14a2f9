"""Scores against a count by hand that shares nothing with scikit-learn, and entities against seqeval."""

import random
from collections import Counter
from typing import Any

import pytest
from hmnet_pipe.stages.learning.entities import entities_of
from hmnet_pipe.stages.learning.scores import score_entities, score_relations
from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities

TYPES = ("LOC", "MISC", "PER")
RELATIONS = ("None", "/per/loc", "/per/org", "/loc/loc")


def random_tags(rng: random.Random, length: int) -> list[str]:
    """Return valid BIO with touching mentions, and mentions of one and of many words."""
    tags: list[str] = []
    while len(tags) < length:
        kind = rng.choice(TYPES)
        tags += rng.choice(
            (["O"], ["O", "O"], [f"B-{kind}"], [f"B-{kind}", *[f"I-{kind}"] * rng.randint(1, 3)])
        )
    return tags[:length]


def near(rng: random.Random, tags: list[str]) -> list[str]:
    """Return predictions that are often right, with other mentions in place of some words."""
    start = rng.randrange(len(tags))
    end = rng.randint(start, len(tags))
    guess = [*tags[:start], *random_tags(rng, end - start), *tags[end:]] if end > start else list(tags)
    for index, tag in enumerate(guess):
        before = guess[index - 1] if index else "O"
        if tag.startswith("I-") and before[2:] != tag[2:]:
            guess[index] = f"B-{tag[2:]}"
    return guess


def mentions(tags: list[str]) -> list[tuple[str, int, int]]:
    """Return (type, first word, word after the last) of each mention of valid BIO tags."""
    found: list[tuple[str, int, int]] = []
    for index, tag in enumerate(tags):
        if tag.startswith("B-"):
            found.append((tag[2:], index, index + 1))
        elif tag.startswith("I-"):
            kind, start, _ = found.pop()
            found.append((kind, start, index + 1))
    return found


def rates(correct: int, predicted: int, gold: int) -> dict[str, Any]:
    precision = correct / predicted if predicted else 0
    recall = correct / gold if gold else 0
    f1 = 2 * correct / (predicted + gold) if correct else 0
    return {
        "precision": pytest.approx(precision),
        "recall": pytest.approx(recall),
        "f1": pytest.approx(f1),
        "support": gold,
    }


def pick(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: scores[name] for name in ("precision", "recall", "f1", "support")}


# Entities.


def test_entity_scores_are_the_count_of_exact_matches_over_all_and_per_type() -> None:
    rng = random.Random(0)
    for _ in range(40):
        gold = [random_tags(rng, rng.randint(1, 12)) for _ in range(rng.randint(1, 8))]
        guess = [near(rng, tags) for tags in gold]
        correct, predicted, there = (Counter[str]() for _ in range(3))
        for truth, answer in zip(gold, guess, strict=True):
            there.update(kind for kind, *_ in mentions(truth))
            predicted.update(kind for kind, *_ in mentions(answer))
            correct.update(kind for kind, *_ in set(mentions(truth)) & set(mentions(answer)))
        scores = score_entities(gold, guess)
        assert pick(scores) == rates(correct.total(), predicted.total(), there.total())
        assert {kind: pick(row) for kind, row in scores["per_type"].items()} == {
            kind: rates(correct[kind], predicted[kind], there[kind]) for kind in sorted({*there, *predicted})
        }
        assert scores["per_group"] == {}


def test_a_match_needs_the_same_type_and_both_ends() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"]]
    for guess in (
        ["B-PER", "O", "O", "O"],
        ["O", "B-PER", "O", "O"],
        ["B-PER", "I-PER", "I-PER", "O"],
        ["B-LOC", "I-LOC", "O", "O"],
    ):
        assert pick(score_entities(gold, [guess])) == rates(0, 1, 2)
    assert pick(score_entities(gold, [["B-PER", "I-PER", "O", "O"]])) == rates(1, 1, 2)
    # Two mentions that touch are not one.
    assert pick(score_entities([["B-PER", "B-PER"]], [["B-PER", "I-PER"]])) == rates(0, 1, 2)


def test_words_beyond_the_limit_still_count_in_gold() -> None:
    gold = [["B-PER", "O", "B-LOC", "I-LOC"], ["O", "O", "O", "B-PER"]]
    cut = [["B-PER", "O", "O", "O"], ["O", "O", "O", "O"]]
    assert pick(score_entities(gold, cut)) == rates(1, 1, 3)


@pytest.mark.parametrize(
    ("gold", "guess"),
    [
        ([["O", "O"]], [["O", "O"]]),
        ([["O"]], [["B-PER"]]),
        ([["B-PER"]], [["O"]]),
        ([["O"], ["O"]], [["O"], ["O"]]),
    ],
)
def test_nothing_to_find_or_nothing_found_scores_0(gold: Any, guess: Any) -> None:
    scores = score_entities(gold, guess, [["x"] * len(mentions(tags)) for tags in gold])
    assert pick(scores) == rates(
        0, sum(len(mentions(tags)) for tags in guess), sum(len(mentions(tags)) for tags in gold)
    )


def test_a_gold_mention_counts_for_its_group_and_a_predicted_one_for_that_which_it_overlaps_first() -> None:
    rng = random.Random(1)
    for _ in range(60):
        gold = [random_tags(rng, rng.randint(1, 12)) for _ in range(rng.randint(1, 6))]
        guess = [near(rng, tags) for tags in gold]
        groups = [[rng.choice(("clear", "ambiguous", "unseen")) for _ in mentions(tags)] for tags in gold]
        correct, predicted, there = (Counter[str]() for _ in range(3))
        for truth, answer, names in zip(gold, guess, groups, strict=True):
            there.update(names)
            owner = {
                word: name
                for (_, start, end), name in zip(mentions(truth), names, strict=True)
                for word in range(start, end)
            }
            for mention in mentions(answer):
                touched = [owner[word] for word in range(*mention[1:]) if word in owner]
                if touched:
                    predicted[touched[0]] += 1
                    correct[touched[0]] += mention in mentions(truth)
        scores = score_entities(gold, guess, groups)
        assert {name: pick(row) for name, row in scores["per_group"].items()} == {
            name: rates(correct[name], predicted[name], there[name]) for name in sorted(there)
        }
        assert pick(scores) == pick(score_entities(gold, guess))


def test_sentences_without_groups_are_in_the_overall_score_only() -> None:
    scores = score_entities([["B-PER"], ["B-PER"]], [["B-PER"], ["B-PER"]], [["unseen"], []])
    assert scores["per_group"] == {"unseen": pick(scores) | {"support": 1}}
    assert scores["support"] == 2


# Relations.


def count_relations(gold: list[str], guess: list[str]) -> tuple[int, int, int]:
    pairs = list(zip(gold, guess, strict=True))
    correct = len([1 for truth, answer in pairs if truth == answer and truth != "None"])
    return correct, len(guess) - guess.count("None"), len(gold) - gold.count("None")


def test_relation_scores_leave_none_out_and_accuracy_does_not() -> None:
    rng = random.Random(2)
    for _ in range(60):
        gold = rng.choices(RELATIONS, [5, 3, 2, 1], k=rng.randint(1, 30))
        guess = [truth if rng.random() < 0.5 else rng.choice(RELATIONS) for truth in gold]
        scores = score_relations(gold, guess, negative="None")
        assert pick(scores) == rates(*count_relations(gold, guess))
        assert scores["accuracy"] == pytest.approx(sum(map(str.__eq__, gold, guess)) / len(gold))
        per_type = {
            name: rates(
                sum(a == b == name for a, b in zip(gold, guess, strict=True)),
                guess.count(name),
                gold.count(name),
            )
            for name in sorted({*gold, *guess} - {"None"})
        }
        assert {name: pick(row) for name, row in scores["per_type"].items()} == per_type


def test_none_is_no_success() -> None:
    scores = score_relations(["None", "None", "/per/loc"], ["None", "None", "None"], negative="None")
    assert pick(scores) == rates(0, 0, 1)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert "None" not in scores["per_type"]


def test_the_wrong_relation_is_neither_a_success_nor_a_negative() -> None:
    assert pick(score_relations(["/per/loc", "None"], ["/per/org", "/per/org"], negative="None")) == rates(
        0, 2, 1
    )


def test_only_negatives_score_0_with_their_accuracy() -> None:
    scores = score_relations(["None", "None"], ["None", "None"], negative="None")
    assert pick(scores) == rates(0, 0, 0)
    assert (scores["accuracy"], scores["per_type"]) == (1.0, {})


def test_relations_are_scored_per_group_over_the_groups_own_samples() -> None:
    rng = random.Random(3)
    for _ in range(40):
        gold = rng.choices(RELATIONS, k=20)
        guess = [truth if rng.random() < 0.5 else rng.choice(RELATIONS) for truth in gold]
        groups = [rng.choice(([], ["clear"], ["ambiguous"])) for _ in gold]
        scores = score_relations(gold, guess, groups, negative="None")
        assert pick(scores) == rates(*count_relations(gold, guess))
        for name in ("ambiguous", "clear"):
            members = [index for index, group in enumerate(groups) if group == [name]]
            if not members:
                assert name not in scores["per_group"]
                continue
            truths, answers = [gold[index] for index in members], [guess[index] for index in members]
            assert pick(scores["per_group"][name]) == rates(*count_relations(truths, answers))
            assert scores["per_group"][name]["accuracy"] == pytest.approx(
                sum(map(str.__eq__, truths, answers)) / len(members)
            )
        assert set(scores["per_group"]) <= {"ambiguous", "clear"}


def test_entities_are_those_of_seqeval_also_where_tags_are_no_valid_sequence() -> None:
    tags = ["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("PER", "LOC", "a-b"))]
    rng = random.Random(0)
    rows = [[rng.choice(tags) for _ in range(rng.randrange(12))] for _ in range(2000)]
    for row in rows:
        assert entities_of(row) == get_entities(row)
    gold = [row for row in rows if row]
    guess = [[rng.choice(tags) if rng.random() < 0.3 else tag for tag in row] for row in gold]
    report = classification_report(gold, guess, output_dict=True, zero_division=0)
    scores = score_entities(gold, guess)
    for name in ("PER", "LOC", "a-b"):
        assert scores["per_type"][name] == {
            "precision": report[name]["precision"],
            "recall": report[name]["recall"],
            "f1": report[name]["f1-score"],
            "support": report[name]["support"],
        }
    assert (scores["f1"], scores["support"]) == (
        report["micro avg"]["f1-score"],
        report["micro avg"]["support"],
    )
