"""Whole runs on text encoders of other types: what the table of docs/encoders.md says that ran."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe import Predictor
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, PREDICTIONS, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.verify import verify_run
from hmnet_pipe.pipeline.reproduce.lock import lock_run, read_lock
from hmnet_pipe.pipeline.run.evaluate import evaluate_trial
from hmnet_pipe.stages.learning.opened import open_model
from hmnet_pipe.stages.predict.results import Result
from hmnet_pipe.stages.text.encoders.families import FAMILIES

from ...encoders import KINDS, save_encoder
from ...running import HMNET, Demos, bring_up_to_date, configure, finetuned_of

SIZES = {"train": 24, "valid": 8, "test": 8}
RECIPE = {"epochs": 1, "first_evaluation": 1, "precision": "fp32", "learning_rate": 5e-3, "batch_size": 4}
TEXT_ONLY = {"ner": "bert-crf", "re": "mtb"}

# The one whose attention and tokenizer are least like BERT's is tried with every change.
OFTEN = ("deberta-v2", "ner")
RUNS = [
    pytest.param(kind, task, marks=[pytest.mark.slow, *([] if (kind, task) == OFTEN else [pytest.mark.soak])])
    for kind in KINDS
    for task in ("ner", "re")
]


def posts_of(run: RunFolder, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what predictions are of as posts of words, with the image, and for relations the arguments."""
    samples = {row["id"]: row for row in read_table(run.samples, SAMPLES).to_pylist()}
    paths = {row["key"]: row["path"] for row in read_table(run.images, IMAGES).to_pylist()}
    return [
        {**{key: sample[key] for key in ("tokens", "head", "tail")}, "image": paths.get(sample["image_key"])}
        for sample in (samples[row["id"]] for row in rows)
    ]


def tagged(result: Result) -> list[str]:
    """Return the tags of the entities of a post of words."""
    tags = ["O"] * len(result.tokens or ())
    for one in result.entities:
        assert one.token_start is not None
        assert one.token_end is not None
        tags[one.token_start : one.token_end] = [
            f"{'I' if word else 'B'}-{one.entity_group}" for word in range(one.token_end - one.token_start)
        ]
    return tags


def test_the_document_names_the_types_of_these_runs() -> None:
    assert {family.name for family in FAMILIES.values() if family.whole} == {*KINDS}


@pytest.mark.parametrize(("kind", "task"), RUNS)
def test_a_run_on_an_encoder_goes_from_training_to_new_posts(
    kind: str, task: str, demos: Demos, tmp_path: Path
) -> None:
    run = RunFolder(Path(shutil.copytree(demos.run(task, SIZES), tmp_path / "run")))
    texts = [" ".join(tokens) for tokens in read_table(run.samples, SAMPLES)["tokens"].to_pylist()]
    configure(run.path, "train", encoder=str(save_encoder(tmp_path / "encoder", kind, texts)), **RECIPE)
    for trial in (HMNET, Trial(TEXT_ONLY[task])):
        bring_up_to_date(run.path, "train", trial=trial)
        _, path = evaluate_trial(run, trial, run)
        rows = read_table(path.with_suffix(".parquet"), PREDICTIONS).to_pylist()
        posts = posts_of(run, rows)
        found = Predictor.from_pretrained(run.model(trial))(posts)
        if task == "ner":
            assert [tagged(one) for one in found] == [row["predicted"] for row in rows]
        else:
            assert [[pair.relation for pair in one.relations] for one in found] == [
                row["predicted"] for row in rows
            ]
        opened = open_model(run.model(trial))
        opened.model.save_pretrained(tmp_path / trial.system, opened.reader)
        assert Predictor.from_pretrained(tmp_path / trial.system)(posts) == found
    bring_up_to_date(run.path, "finetune", start="train", epochs=1)
    assert Predictor.from_pretrained(finetuned_of(run.path))(posts[0]).image_status == "used"
    assert verify_run(run) == []
    assert len(read_lock(lock_run(run, tmp_path / "run.lock"))["scores"]) == 3
