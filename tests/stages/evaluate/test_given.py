"""Predictions of others: scored as a model's own, and refused in one sentence where they do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.run.score import score_predictions
from hmnet_pipe.pipeline.run.trainings import differences, finished_trainings
from hmnet_pipe.stages.learning.predictions import score_split
from hmnet_pipe.stages.learning.splits import read_split

from ...running import begin

TAGS = [["B-PER", "I-PER", "O"], ["O", "B-LOC"], ["O", "O", "O"], ["B-PER", "O"]]


def run_of(folder: Path, task: str = "ner") -> RunFolder:
    """Return a run that holds nothing but four test samples and a validation sample."""
    run = RunFolder(begin(folder / task, folder, task))
    rows = [
        {
            "id": f"{split}-{number}",
            "split": split,
            "task": task,
            "tokens": ["w"] * (len(tags) - 1) + [str(number)],
            **(
                {"tags": tags, "groups": ["vision" if number == 0 else "text"] * ("B" in str(tags))}
                if task == "ner"
                else {"head": [0, 1], "tail": [1, 2], "relation": ("None", "peer")[number % 2], "groups": []}
            ),
        }
        for split, all_tags in (("test", TAGS), ("valid", TAGS[:1]))
        for number, tags in enumerate(all_tags)
    ]
    write_table(run.samples, table_of(SAMPLES, rows))
    return run


def given(folder: Path, *values: Any) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(value if isinstance(value, str) else json.dumps(value) for value in values))
    return path


PREDICTED = [["B-PER", "I-PER", "O"], ["B-LOC", "I-LOC"], ["O", "B-PER", "O"], ["B-PER", "O"]]


def test_tags_in_any_order_are_scored_as_a_models_own(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    lines = [{"id": f"test-{number}", "tags": PREDICTED[number]} for number in (2, 0, 3, 1)]
    scores, folder = score_predictions(given(tmp_path, *lines), run)
    split = read_split(read_table(run.samples, SAMPLES), "test", task="ner")
    assert scores == score_split(split, PREDICTED, "ner")
    assert folder == run.path / "scored" / "mine" / "seed-1"
    entities = [
        {"id": "test-0", "entities": [{"type": "PER", "start": 0, "end": 2}]},
        {"id": "test-1", "entities": [{"entity_group": "LOC", "token_start": 0, "token_end": 2, "start": 9}]},
        {"id": "test-2", "entities": [{"type": "PER", "start": 1, "end": 2}]},
        {"id": "test-3", "entities": [{"type": "PER", "start": 0, "end": 1}]},
    ]
    assert score_predictions(given(tmp_path, *entities), run, name="other")[0] == scores
    in_order = given(tmp_path, *({"tags": tags} for tags in PREDICTED))
    assert score_predictions(in_order, run, name="third")[0] == scores


def test_relations_are_scored_without_the_negative_one(tmp_path: Path) -> None:
    run = run_of(tmp_path, "re")
    path = given(tmp_path, *({"relation": name} for name in ("None", "peer", "peer", "None")))
    scores, _ = score_predictions(path, run)
    assert (scores["precision"], scores["recall"], scores["negative"]) == (0.5, 0.5, "None")


def test_they_are_a_row_of_the_table_and_are_tested(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    score_predictions(given(tmp_path, *({"tags": tags} for tags in TAGS)), run, name="best")
    score_predictions(given(tmp_path, *({"tags": tags} for tags in PREDICTED)), run, name="mine")
    score_predictions(given(tmp_path, {"tags": PREDICTED[0]}), run, split="valid", name="mine")
    metrics = finished_trainings(run)
    assert [(one["system"], one["test"]["f1"] == 1) for one in metrics] == [("best", True), ("mine", False)]
    assert metrics[1]["valid"]["f1"] == 1
    found = differences(run, metrics, "best")
    assert list(found) == ["mine[given]"]
    assert found["mine[given]"]["value"] < 0
    done = CliRunner().invoke(main, ["table", str(run.path), "--against", "best"])
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()[2:]] == ["best[given]", "mine[given]"]


ALL = [{"id": f"test-{number}", "tags": tags} for number, tags in enumerate(TAGS)]
WRONG: dict[str, list[Any]] = {
    r"line 2 is not JSON": [ALL[0], "{", *ALL[2:]],
    r"line 1 is no JSON object": ["[]"],
    r"line 1 is no JSON object with an id that is a text": [{"id": 3, "tags": []}],
    r"line 1: the split test has no sample 'x'": [{"id": "x", "tags": []}],
    r"line 2: 'test-0' has a prediction already": [ALL[0], ALL[0]],
    r"no prediction of 1 samples of test \(test-3": ALL[:3],
    r"2 of 3 lines have an id": [*ALL[:2], {"tags": []}],
    r"has 1 lines without ids, and the split test 4 samples": [{"tags": []}],
    r"line 1 has 2 tags, and the sample 3 words": [{"id": "test-0", "tags": ["O", "O"]}],
    r"line 1: `tags` must be a list of BIO tags": [{"id": "test-0", "tags": ["PER", "O", "O"]}],
    r"line 1 has neither `tags`": [{"id": "test-0"}],
    r"overlaps another entity": [
        {
            "id": "test-0",
            "entities": [{"type": "PER", "start": 0, "end": 2}, {"type": "LOC", "start": 1, "end": 3}],
        }
    ],
    r"PER from 0 to 4 is no range of the sample's 3 words": [
        {"id": "test-0", "entities": [{"type": "PER", "start": 0, "end": 4}]}
    ],
    r"no `type` that is a word": [{"id": "test-0", "entities": [{"start": 0, "end": 1}]}],
    r"its entities count characters": [
        {"id": "test-0", "entities": [{"entity_group": "PER", "start": 0, "end": 1}]}
    ],
}


@pytest.mark.parametrize("words", WRONG)
def test_predictions_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path, words: str) -> None:
    run = run_of(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        score_predictions(given(tmp_path, *WRONG[words]), run)
    assert "mine.jsonl" in str(caught.value)
    assert not (run.path / "scored").exists()


def test_what_is_no_name_or_no_split_or_no_file_is_refused(tmp_path: Path) -> None:
    run, path = run_of(tmp_path), given(tmp_path, *ALL)
    with pytest.raises(InputError, match=r"--name '../x'"):
        score_predictions(path, run, name="../x")
    with pytest.raises(InputError, match=r"--split 'tset' is not one of"):
        score_predictions(path, run, split="tset")
    with pytest.raises(InputError, match=r"holds no train split"):
        score_predictions(path, run, split="train")
    with pytest.raises(InputError, match=r"nowhere.jsonl cannot be read"):
        score_predictions(tmp_path / "nowhere.jsonl", run)
    with pytest.raises(InputError, match=r"line 1 has no `relation` that is a text"):
        score_predictions(given(tmp_path, *({"x": 1} for _ in TAGS)), run_of(tmp_path, "re"))
