"""Low-resource draws: without replacement, nested, equal for all, and of so many samples a class."""

import itertools
import random
from collections import Counter

import pytest
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.stages.learning.draws import drawn, few_shots, share_of, subset_digest
from hmnet_pipe.stages.learning.splits import Split

RELATIONS = ["None", "/per/per", "/per/loc", "/per/org"]
KINDS = ["PER", "LOC", "ORG", "MISC"]


def split_of(gold: list[list[str]]) -> Split:
    count = len(gold)
    names = [f"train-{number:05d}" for number in range(count)]
    return Split("train", names, [["w"] * len(tags) for tags in gold], gold, [[]] * count, [None] * count)


def relations(seed: int = 3, rows: int = 400) -> Split:
    """Return rows of which most hold no relation, and one class has three."""
    draw = random.Random(seed)
    names = draw.choices(RELATIONS[:3], weights=(8, 1, 1), k=rows - 3)
    return split_of([[name] for name in [*names, *["/per/org"] * 3]])


def entities(seed: int = 4) -> Split:
    draw = random.Random(seed)
    return split_of(
        [[f"B-{kind}" for kind in draw.sample(KINDS, draw.choice((0, 1, 1, 2)))] + ["O"] for _ in range(200)]
    )


def sizes(split: Split) -> Counter[str]:
    return Counter(tag.removeprefix("B-") for tags in split.gold for tag in tags if tag != "O")


def test_fault_6_low_resource_samples_are_drawn_without_replacement() -> None:
    split = relations()
    for shots in (1, 5, 20):
        for seed in range(20):
            few = few_shots(split, shots, seed)
            assert len(set(few.ids)) == len(few.ids), "a sample was drawn twice"
            assert sizes(few) == {name: min(shots, 3 if name == "/per/org" else shots) for name in RELATIONS}
            assert few.ids == sorted(few.ids) == few_shots(split, shots, seed).ids
    assert len({tuple(few_shots(split, 5, seed).ids) for seed in range(20)}) == 20


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("split", [relations(), entities()], ids=["relations", "entities"])
def test_more_shots_hold_what_fewer_do(split: Split, natural: bool) -> None:
    for seed in range(20):
        drawn = [
            set(few_shots(split, shots, seed, natural=natural, negative="None").ids)
            for shots in (1, 2, 5, 10, 20, 50, 10**9)
        ]
        assert all(one <= other for one, other in itertools.pairwise(drawn))
        shares = [set(share_of(split, percent, seed).ids) for percent in (1, 5, 10, 50, 100)]
        assert all(one < other for one, other in itertools.pairwise(shares))
        assert len(shares[-1]) == len(split)


def test_so_many_sentences_have_each_type_and_none_has_twice_as_many() -> None:
    for seed in range(10):
        few = few_shots(entities(), 10, seed)
        counts = sizes(few)
        assert len(set(few.ids)) == len(few.ids) <= 40
        assert set(counts) == set(KINDS)
        assert all(10 <= count <= 20 for count in counts.values())
        assert all(any(tag != "O" for tag in tags) for tags in few.gold)


def test_a_type_that_comes_with_a_common_one_alone_is_drawn_all_the_same() -> None:
    gold = [["B-PER", "B-MISC"]] * 30 + [["B-PER"]] * 30
    assert sizes(few_shots(split_of(gold), 5, 1))["MISC"] >= 5


def test_what_has_nothing_to_find_keeps_its_share_where_it_is_asked_to() -> None:
    split = relations()
    share = sizes(split)["None"] / len(split)
    few = few_shots(split, 10, 1, natural=True, negative="None")
    assert sizes(few)["None"] / len(few) == pytest.approx(share, abs=0.02)
    assert (sizes(few)["/per/per"], sizes(few)["/per/loc"], sizes(few)["/per/org"]) == (10, 10, 3)
    assert sizes(few_shots(split, 10, 1))["None"] == 10
    plain = entities()
    empty = sum(set(tags) == {"O"} for tags in plain.gold) / len(plain)
    found = few_shots(plain, 10, 1, natural=True)
    assert sum(set(tags) == {"O"} for tags in found.gold) / len(found) == pytest.approx(empty, abs=0.02)


def test_a_share_of_all_samples_is_drawn_whatever_their_classes() -> None:
    split = relations()
    assert len(share_of(split, 5, 1)) == 20
    assert len(share_of(split_of([["None"]] * 3), 1, 1)) == 1
    assert sizes(share_of(split, 50, 1))["None"] / 200 == pytest.approx(sizes(split)["None"] / 400, abs=0.07)


def test_a_trial_draws_by_its_subset_seed_alone() -> None:
    split = relations()
    digests = {
        (trial.system, trial.seed, trial.subset_seed): subset_digest(drawn(split, trial, "None"))
        for trial in (
            Trial(system, seed, 5, subset)
            for system in ("hmnet", "mtb")
            for seed in (1, 2)
            for subset in (1, 2)
        )
    }
    assert len(set(digests.values())) == 2
    assert digests["hmnet", 1, 1] == digests["mtb", 2, 1] != digests["mtb", 2, 2]
    assert drawn(split, Trial("hmnet"), "None") is split
    assert drawn(split, Trial("hmnet", percent=5), None).ids == share_of(split, 5, 1).ids
    natural = drawn(split, Trial("hmnet", shots=5, natural=True), "None")
    assert natural.ids == few_shots(split, 5, 1, natural=True, negative="None").ids
