"""Cases are chosen by rule: which sample is in which group, in which order, and about which answer."""

from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.schemas import PREDICTIONS
from hmnet_pipe.manifests.schemas import SAMPLES as SAMPLES_SCHEMA
from hmnet_pipe.manifests.tables import table_of
from hmnet_pipe.stages.evaluate.cases import (
    HELPED,
    HURT,
    NAMED,
    PAPER,
    SURE,
    WRONG,
    Case,
    choose,
    named,
    resolved,
)

P, L, O = ["B-PER"], ["B-LOC"], ["O"]  # noqa: E741


def table(rows: list[tuple[str, list[str], list[str], bool]]) -> Any:
    return table_of(
        PREDICTIONS,
        [
            {
                "id": id_,
                "split": "test",
                "tokens": ["w"] * len(gold),
                "gold": gold,
                "predicted": guess,
                "has_image": there,
            }
            for id_, gold, guess, there in rows
        ],
    )


#        id, gold, ours, others, has an image
SAMPLES = [
    ("both right", P, P, P, True),
    ("helped", P + O, P + O, L + O, True),
    ("helped more", P + L, P + L, O + P, True),
    ("helped without image", P, P, O, False),
    ("half helped", P + P, P + L, L + L, True),
    ("hurt", P, L, P, True),
    ("hurt by a spurious one", P + O, P + L, P + O, True),
    ("wrong", P, L, L, True),
    ("sure", P + O, O + L, O + O, True),
    ("nothing", O, O, O, True),
]
OURS = table([(name, gold, ours, there) for name, gold, ours, _, there in SAMPLES])
OTHERS = table([(name, gold, others, there) for name, gold, _, others, there in SAMPLES])
NAMES = [row[0] for row in SAMPLES]


def chosen(each: int = 6) -> dict[str, list[tuple[str, tuple[str, int, int]]]]:
    found: dict[str, list[tuple[str, tuple[str, int, int]]]] = {}
    probabilities = {("sure", ("LOC", 1, 1)): 0.9}
    for case in choose(OURS, OTHERS, "ner", None, probabilities, each):
        found.setdefault(case.group, []).append((NAMES[case.number], case.answer))
    return found


def test_each_group_holds_what_it_says_and_begins_with_the_clearest() -> None:
    assert chosen() == {
        HELPED: [("helped more", ("PER", 0, 0)), ("helped", ("PER", 0, 0))],
        HURT: [("hurt", ("PER", 0, 0)), ("hurt by a spurious one", ("LOC", 1, 1))],
        SURE: [("sure", ("LOC", 1, 1))],
        WRONG: [("half helped", ("PER", 1, 1)), ("wrong", ("PER", 0, 0))],
    }


def test_no_more_than_asked_are_chosen_and_the_same_each_time() -> None:
    assert {group: len(cases) for group, cases in chosen(1).items()} == {
        HELPED: 1,
        HURT: 1,
        SURE: 1,
        WRONG: 1,
    }
    assert chosen() == chosen()


def test_relations_are_chosen_with_the_negative_one_as_nothing() -> None:
    rows = [("helped", ["a"], ["a"], ["None"]), ("hurt", ["None"], ["a"], ["None"])]
    ours = table([(name, gold, guess, True) for name, gold, guess, _ in rows])
    others = table([(name, gold, guess, True) for name, gold, _, guess in rows])
    cases = choose(ours, others, "re", "None", {})
    assert cases == [Case(HELPED, 0, ("a", 0, 0)), Case(HURT, 1, ("a", 0, 0))]


def sample(id_: str, head: str, tail: str, split: str = "test") -> dict[str, Any]:
    words = [*head.split(), "and", *tail.split()]
    first, last = len(head.split()), len(tail.split())
    ends = {"head": [0, first], "tail": [first + 1, first + 1 + last]}
    return {**dict.fromkeys(SAMPLES_SCHEMA.names), **ends, "id": id_, "split": split, "tokens": words}


def test_samples_are_found_by_their_ids_and_the_papers_by_their_words() -> None:
    rows = [
        sample("1", "Jun", "Taylor Hill"),
        sample("2", "Bush", "Iraq"),
        sample("3", "Bush", "America", "train"),
    ]
    samples = table_of(SAMPLES_SCHEMA, rows)
    assert resolved(samples, "test", ["2", PAPER, "1", "2"]) == ["2", "1"]
    assert resolved(samples, "train", [PAPER]) == ["3"]
    with pytest.raises(InputError, match=r"--cases 3: no sample of the test split has this id"):
        resolved(samples, "test", ["3"])
    with pytest.raises(InputError, match=r"none of the paper's sentences is here"):
        resolved(samples, "valid", [PAPER])
    predictions = table([("1", ["peer"], ["couple"], True), ("2", ["None"], ["None"], True)])
    assert named(predictions, ["2", "1"], "re", "None") == [
        Case(NAMED, 1, ("None", 0, 0)),
        Case(NAMED, 0, ("peer", 0, 0)),
    ]
