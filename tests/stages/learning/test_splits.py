"""A split whose items are made when they are asked for holds what its rows say."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import table_of
from hmnet_pipe.stages.learning.columns import distinct
from hmnet_pipe.stages.learning.splits import read_split


def row(number: int, task: str) -> dict[str, Any]:
    words = [f"w{number}", "of", "London"]
    content: dict[str, Any] = (
        {"tags": ["O", "O", f"B-T{number % 3}"], "groups": ["x"] if number % 2 else None}
        if task == "ner"
        else {"head": [0, 1], "tail": [1, 2 + number % 2], "relation": f"r{number % 4}"}
    )
    key = f"{number:064d}" if number % 5 else None
    split = ("test", "train", "valid")[number // 50]
    return {"id": f"{number:03d}", "split": split, "task": task, "tokens": words, "image_key": key, **content}


@pytest.mark.parametrize("task", ["ner", "re"])
@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_a_split_holds_what_its_rows_say(task: str, order: str) -> None:
    rows = [row(number, task) for number in range(150)]
    if order == "mixed":
        rows = [rows[i] for i in np.random.default_rng(1).permutation(150)]
    halves = [table_of(SAMPLES, rows[:77]), table_of(SAMPLES, rows[77:])]
    for name in ("train", "none"):
        own = [each for each in rows if each["split"] == name]
        split = read_split(pa.concat_tables(halves), name, task=task)
        gold = [each["tags"] if task == "ner" else [each["relation"]] for each in own]
        for chosen, numbers in (
            (split, range(len(own))),
            (split.take([3, 0, 3] if own else []), [3, 0, 3] if own else []),
        ):
            assert [*chosen.ids] == [own[i]["id"] for i in numbers]
            assert [*chosen.tokens] == [own[i]["tokens"] for i in numbers]
            assert [chosen.tokens[i] for i in range(len(chosen))] == [*chosen.tokens]
            assert [*chosen.gold] == [gold[i] for i in numbers]
            assert [*chosen.groups] == [own[i].get("groups") or [] for i in numbers]
            assert [*chosen.image_keys] == [own[i]["image_key"] for i in numbers]
            assert distinct(chosen.gold) == {label for i in numbers for label in gold[i]}
            assert (chosen.pairs is None) == (task == "ner")
            if chosen.pairs is not None:
                assert [*chosen.pairs] == [(tuple(own[i]["head"]), tuple(own[i]["tail"])) for i in numbers]
