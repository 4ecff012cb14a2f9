"""The kinds of errors: every entity is in one pair, and what counts as right adds up to the scores."""

import itertools
import random
import tracemalloc
from typing import Any

import pyarrow as pa
import pytest
from hmnet_pipe.manifests.schemas import PREDICTIONS
from hmnet_pipe.manifests.tables import table_of
from hmnet_pipe.stages.learning import columns
from hmnet_pipe.stages.learning import errors as errors_module
from hmnet_pipe.stages.learning.errors import (
    KINDS,
    SHOWN,
    Entity,
    error_report,
    errors_markdown,
    errors_of,
    found_of,
    paired,
)
from hmnet_pipe.stages.learning.scores import score_entities, score_relations

TYPES = ("LOC", "ORG", "PER")


def predictions(rows: list[tuple[list[str], list[str]]], tokens: list[str] | None = None) -> Any:
    return table_of(
        PREDICTIONS,
        [
            {
                "id": f"s{number}",
                "split": "test",
                "tokens": tokens or [f"w{i}" for i in range(len(gold))],
                "gold": gold,
                "predicted": guess,
                "has_image": True,
            }
            for number, (gold, guess) in enumerate(rows)
        ],
    )


def tags(length: int, *entities: Entity) -> list[str]:
    found = ["O"] * length
    for name, first, last in entities:
        found[first : last + 1] = [f"B-{name}", *[f"I-{name}"] * (last - first)]
    return found


def drawn(seed: int, count: int = 60) -> list[tuple[list[str], list[str]]]:
    """Return pairs of tag sequences of which most overlap somehow."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        pair = []
        for _ in range(2):
            place, entities = 0, []
            while (place := place + chance.randrange(3)) < 8:
                last = min(7, place + chance.randrange(3))
                entities.append((chance.choice(TYPES), place, last))
                place = last + 1
            pair.append(tags(8, *entities))
        rows.append((pair[0], pair[1]))
    return rows


@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        ([("PER", 0, 1)], [("PER", 0, 1)], ["correct"]),
        ([("PER", 0, 1)], [("LOC", 0, 1)], ["type"]),
        ([("PER", 0, 1)], [("PER", 0, 0)], ["boundary"]),
        ([("PER", 0, 1)], [("LOC", 1, 2)], ["type and boundary"]),
        ([("PER", 0, 1)], [], ["missed"]),
        ([], [("PER", 0, 1)], ["spurious"]),
        ([("PER", 0, 1)], [("PER", 2, 3)], ["missed", "spurious"]),
        # An equal one is taken before a longer overlap, and none is taken twice.
        ([("PER", 0, 3), ("PER", 4, 4)], [("PER", 3, 4)], ["boundary", "missed"]),
        ([("LOC", 0, 0), ("PER", 1, 4)], [("PER", 0, 4)], ["missed", "boundary"]),
        ([("PER", 0, 4)], [("LOC", 0, 3), ("PER", 4, 4)], ["spurious", "boundary"]),
        ([("PER", 0, 4)], [("PER", 0, 0), ("PER", 1, 4)], ["spurious", "boundary"]),
    ],
)
def test_a_pair_is_what_differs_in_it(gold: list[Entity], predicted: list[Entity], kinds: list[str]) -> None:
    pairs = paired(gold, predicted)
    assert sorted(pair.kind for pair in pairs) == sorted(kinds)
    assert [pair.gold for pair in pairs if pair.gold] == gold
    assert sorted(pair.predicted for pair in pairs if pair.predicted) == sorted(predicted)


@pytest.mark.parametrize("seed", range(5))
def test_strict_is_the_score_of_every_table_and_all_counts_add_up(seed: int) -> None:
    rows = drawn(seed)
    report = error_report(predictions(rows), "ner")
    scores = score_entities([gold for gold, _ in rows], [guess for _, guess in rows])
    for name in ("precision", "recall", "f1"):
        assert report["schemes"]["strict"][name] == pytest.approx(scores[name], abs=1e-12)
    gold, guessed = ([entity for row in rows for entity in found_of(row[side], "ner")] for side in (0, 1))
    kinds = report["kinds"]
    assert sum(kinds.values()) - kinds["spurious"] == len(gold)
    assert sum(kinds.values()) - kinds["missed"] == len(guessed)
    counts, names = report["confusion"]["counts"], report["confusion"]["types"]
    assert sum(map(sum, counts)) == sum(kinds.values())
    for number, name in enumerate(names):
        assert sum(counts[number]) == sum(one[0] == name for one in gold)
        assert sum(row[number] for row in counts) == sum(one[0] == name for one in guessed)
    assert sum(counts[i][i] for i in range(len(names))) == kinds["correct"] + kinds["boundary"]
    assert counts[-1][-1] == 0
    assert sum(counts[-1]) == kinds["spurious"]
    assert sum(row[-1] for row in counts) == kinds["missed"]


def test_the_schemes_forgive_what_they_say() -> None:
    """One of each kind: by hand, from the definitions of SemEval-2013."""
    words = 12
    gold = tags(words, ("PER", 0, 1), ("PER", 3, 3), ("LOC", 4, 5), ("ORG", 7, 8), ("LOC", 10, 10))
    guess = tags(words, ("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 4), ("PER", 8, 8), ("ORG", 11, 11))
    report = error_report(predictions([(gold, guess)]), "ner")
    assert report["kinds"] == dict.fromkeys(KINDS, 1)
    expected = {"strict": 1, "exact": 2, "partial": 2 + 1, "type": 2}
    for name, right in expected.items():
        row = report["schemes"][name]
        assert (row["precision"], row["recall"]) == (right / 5, right / 5)


def test_relations_are_missed_or_spurious_by_the_negative_one() -> None:
    rows = list(itertools.product(["None", "a", "b"], repeat=2))
    table = predictions([([gold], [guess]) for gold, guess in rows])
    report = error_report(table, "re", "None")
    kinds = {"correct": 2, "type": 2, "boundary": 0, "type and boundary": 0, "missed": 2, "spurious": 2}
    assert report["kinds"] == kinds
    assert report["confusion"] == {"types": ["a", "b"], "counts": [[1, 1, 1], [1, 1, 1], [1, 1, 0]]}
    assert report["schemes"] == {}
    scores = score_relations([one for one, _ in rows], [one for _, one in rows], negative="None")
    found = kinds["correct"] + kinds["type"] + kinds["spurious"]
    assert kinds["correct"] / found == scores["precision"]
    errors = errors_of(table, "re", "None").to_pylist()
    assert [(row["gold_type"], row["predicted_type"], row["kind"]) for row in errors[:2]] == [
        (None, "a", "spurious"),
        (None, "b", "spurious"),
    ]
    assert all(row["gold_words"] is None and row["predicted_words"] is None for row in errors)


def test_each_error_is_a_row_with_its_words_and_its_probability() -> None:
    gold, guess = tags(4, ("PER", 0, 1)), tags(4, ("LOC", 0, 1), ("PER", 3, 3))
    table = predictions([(tags(4), tags(4)), (gold, guess)])
    rows = errors_of(table, "ner", scores=[{}, {("LOC", 0, 1): 0.75, ("PER", 3, 3): 0.5}]).to_pylist()
    assert [(row["id"], row["kind"], row["probability"]) for row in rows] == [
        ("s1", "type", 0.75),
        ("s1", "spurious", 0.5),
    ]
    assert (rows[0]["gold_words"], rows[0]["predicted_words"]) == ([0, 2], [0, 2])
    assert (rows[1]["gold_type"], rows[1]["gold_words"]) == (None, None)
    assert rows[1]["predicted_words"] == [3, 4]


def test_the_page_of_errors_shows_text_of_the_data_as_it_is() -> None:
    words = ["<script>alert(1)</script>", "a|b", "\x1b[31m", "*x*"]
    table = predictions([(tags(4, ("PER", 0, 0)), tags(4, ("LOC", 0, 0)))], words)
    page = errors_markdown("Errors of <b>", error_report(table, "ner"), errors_of(table, "ner"))
    assert "<script>" not in page
    assert "<b>" not in page
    assert "\x1b" not in page
    assert r"&lt;script>alert(1)&lt;/script> a\|b \\x1b\[31m \*x\*" in page
    assert "## type: 1" in page


def test_nothing_at_all_has_no_error_and_scores_nothing() -> None:
    report = error_report(predictions([(tags(2), tags(2))]), "ner")
    assert set(report["kinds"].values()) == {0}
    assert report["schemes"]["strict"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert report["confusion"] == {"types": [], "counts": [[0]]}


def test_a_page_of_errors_shows_some_of_each_kind_and_says_how_many_there_are() -> None:
    table = predictions([(["B-PER"], ["O"])] * (SHOWN + 5) + [(["O"], ["B-LOC"])] * 3)
    errors = errors_of(table, "ner")
    page = errors_markdown("Errors", error_report(table, "ner"), errors)
    assert errors.num_rows == SHOWN + 8
    assert f"## missed: {SHOWN + 5}\n\nThe first {SHOWN} of them;" in page
    assert f"| s{SHOWN - 1} |" in page
    assert f"| s{SHOWN} |" not in page
    assert "## spurious: 3\n\n| sample |" in page


def test_errors_of_many_samples_hold_few_of_them_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python's objects, 5,000 samples of 20 words take some 10 MB."""
    for module in (columns, errors_module):
        monkeypatch.setattr(module, "_AT_ONCE", 100)
    tokens = pa.array([[f"word{number}" for number in range(20)]] * 5000)
    labels = [pa.array([each] * len(tokens)) for each in (tags(20, ("PER", 3, 4)), tags(20, ("PER", 3, 3)))]
    names = pa.array([f"s{i}" for i in range(len(tokens))])
    split, there = (pa.repeat(pa.scalar(value), len(tokens)) for value in ("test", True))
    table = pa.table([names, split, tokens, *labels, there], PREDICTIONS)
    tracemalloc.start()
    try:
        report, errors = error_report(table, "ner"), errors_of(table, "ner")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report["kinds"]["boundary"] == errors.num_rows == len(tokens)
    assert peak < 2e6
