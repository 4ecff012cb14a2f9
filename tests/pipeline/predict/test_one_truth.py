"""One truth: what is found in raw texts and image files is what evaluate finds in a run's samples."""

import json
import shutil
from pathlib import Path

import pytest
from hmnet_pipe import Predictor
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, PREDICTIONS, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.predict.command import model_meant
from hmnet_pipe.pipeline.run.evaluate import evaluate_trial
from hmnet_pipe.stages.learning.calibration import judged_in
from hmnet_pipe.stages.learning.opened import open_model, open_visuals
from hmnet_pipe.stages.learning.splits import encode_split

from ...running import HMNET, Demos, bring_up_to_date, configure, finetuned_of, model_of, stage_of

pytestmark = pytest.mark.slow

SIZES = {"train": 24, "valid": 8, "test": 8}
RECIPE = {"epochs": 15, "first_evaluation": 5, "precision": "fp32", "learning_rate": 5e-3, "batch_size": 4}


@pytest.fixture(scope="module")
def run(demos: Demos, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with a model on features and one from pixels."""
    folder = Path(shutil.copytree(demos.run(sizes=SIZES), tmp_path_factory.mktemp("truth") / "run"))
    bring_up_to_date(folder, "prepare", words="tweet")  # it splits these texts as they came
    configure(folder, "train", encoder=str(tiny_encoder), **RECIPE)
    bring_up_to_date(folder, "train")
    bring_up_to_date(folder, "finetune", start="train", epochs=1)
    return folder


@pytest.mark.parametrize("pixels", [False, True])
def test_raw_texts_and_image_files_give_the_labels_and_scores_of_evaluate(run: Path, pixels: bool) -> None:
    model = finetuned_of(run) if pixels else model_of(run)
    assert model_meant(str(run), "hmnet", 1, finetuned=pixels) == str(model)
    folder = RunFolder(run)
    _, path = evaluate_trial(folder, HMNET, folder, finetuned=pixels)
    predictions = read_table(path.with_suffix(".parquet"), PREDICTIONS).to_pylist()
    scores = scores_of(model, folder, pixels)

    rows = {row["id"]: row for row in read_table(folder.samples, SAMPLES).to_pylist()}
    paths = {row["key"]: row["path"] for row in read_table(folder.images, IMAGES).to_pylist()}
    images = [paths.get(rows[row["id"]]["image_key"]) for row in predictions]
    found = Predictor.from_pretrained(model)([" ".join(row["tokens"]) for row in predictions], image=images)
    number = 0
    for row, result in zip(predictions, found, strict=True):
        assert result.text.split(" ") == row["tokens"]
        starts = [0]
        for word in row["tokens"]:
            starts.append(starts[-1] + len(word) + 1)
        tags = ["O"] * len(row["tokens"])
        for entity in result.entities:
            first, last = starts.index(entity.start), starts.index(entity.end + 1)
            tags[first:last] = [f"{'BI'[i > 0]}-{entity.entity_group}" for i in range(last - first)]
            assert entity.score == pytest.approx(scores[number], abs=1e-5)
            number += 1
        assert tags == row["predicted"]
    assert number == len(scores) > 0
    assert {one.image_status for one in found} >= {"used"}


def scores_of(model: Path, run: RunFolder, pixels: bool) -> list[float]:
    """Return the probability of each entity that evaluate finds in the test split, in its order."""
    opened = open_model(model)
    split = encode_split(
        read_table(run.samples, SAMPLES),
        "test",
        opened.reader,
        task="ner",
        max_length=opened.config.max_length,
    )
    plan = stage_of(run.path, "extract").plan() if pixels else None
    visuals = open_visuals(opened, run, plan, None if pixels else "pyramid")
    pad_id, precision = opened.reader.pad_id, opened.precision
    judged, labels = judged_in(opened.model, split, None, visuals=visuals, pad_id=pad_id, precision=precision)
    return [score for known in judged.probabilities(labels, "ner") for score in known.values()]


def test_a_model_from_pixels_needs_no_weights_but_its_own(run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(finetuned_of(run), tmp_path / "moved"))
    values = json.loads((moved / "config.json").read_text())
    values["made_by"]["extract"]["settings"]["weights"] = "gone.pth"
    (moved / "config.json").write_text(json.dumps(values))
    image = read_table(RunFolder(run).images, IMAGES).to_pylist()[0]["path"]
    found, there = (
        Predictor.from_pretrained(one)("Ada in Oslo", image) for one in (moved, finetuned_of(run))
    )
    assert found == there
    assert found.image_status == "used"
