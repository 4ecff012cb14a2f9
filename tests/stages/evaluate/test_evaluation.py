"""Scores are of features and boxes made as those that the model was trained on, and are read again without
torch.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import ERRORS, MENTION_BOXES, PREDICTIONS, SAMPLES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.run.evaluate import evaluate_trial
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.evaluate.evaluation import evaluate
from hmnet_pipe.stages.evaluate.recorded import Evaluation, causes_of, fresh_evaluation, recorded_evaluations
from hmnet_pipe.stages.learning.made_by import made_by

from ...corpora import gmner_of
from ...running import Demos, bring_up_to_date, configure, finetuned_of, model_of, stage_of

TEXT = Trial("bert-crf", 1)
SIZES = {"train": 16, "valid": 6, "test": 6}


@pytest.fixture(scope="module")
def run(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Return a run with three models: on features, on text alone, and from pixels."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    run = Path(shutil.copytree(demos.run(sizes=SIZES), folder))
    configure(run, "train", encoder=str(tiny_encoder), epochs=1, first_evaluation=1)
    bring_up_to_date(run, "train")
    bring_up_to_date(run, "train", trial=TEXT)
    bring_up_to_date(run, "finetune", start="pretrained", epochs=1)
    return run


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def another_detector(run: Path) -> None:
    """Let the records say that the run's objects were found by another detector, and extracted from there."""
    path = RunFolder(run).record("detect")
    record = StageRecord.read(path)
    assert record is not None
    other = {**record.parameters, "detector": "fasterrcnn_resnet50_fpn"}
    replace(record, parameters=other, weights={"detector": "a" * 64}).write(path)


def another_score(run: Path) -> None:
    """Detect and extract again, with objects of another score."""
    bring_up_to_date(run, "detect", min_score=0.99)
    bring_up_to_date(run, "extract")


def scored(model: Path, run: Path, said: list[str] | None = None, *, pixels: bool = False) -> Path:
    plan = stage_of(run, "extract").plan() if pixels else None
    tools = Tools(say=(said if said is not None else []).append)
    return evaluate(model, RunFolder(run), plan=plan, tools=tools)[1]


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            another_detector,
            r"detector: demo_fasterrcnn -> fasterrcnn_resnet50_fpn; weights\.detector: \w+ -> aaaaaaaaaaaa",
        ),
        (another_score, r"min_score: 0\.\d+ -> 0\.99\).*hmnet-pipe detect .* --min-score 0\.[0-8]"),
    ],
)
def test_objects_of_another_detector_than_the_models_are_refused(
    copy: Path, change: Callable[[Path], None], words: str, pixels: bool
) -> None:
    """In the model's own run, where everything is up to date and only the training is of before."""
    model = finetuned_of(copy) if pixels else model_of(copy)
    said: list[str] = []
    scored(model, copy, said, pixels=pixels)
    assert said == []
    change(copy)
    with pytest.raises(StageError, match=words):
        scored(model, copy, said, pixels=pixels)
    scored(model_of(copy, TEXT), copy, said)
    assert said == []


def test_a_model_that_was_moved_still_knows_its_detector(copy: Path, run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(model_of(run), tmp_path / "elsewhere"))
    said: list[str] = []
    assert scored(moved, copy, said).name == "evaluation-test-of-run.json"
    assert said == []
    another_detector(copy)
    with pytest.raises(StageError, match="detector: demo_fasterrcnn -> fasterrcnn_resnet50_fpn"):
        scored(moved, copy)


def test_a_model_from_before_it_was_kept_how_its_images_were_made_is_said_to_be_one(copy: Path) -> None:
    path = model_of(copy) / "config.json"
    values = json.loads(path.read_text())
    del values["made_by"]
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    said: list[str] = []
    scored(model_of(copy), copy, said)
    assert len(said) == 1
    assert said[0].startswith(f"note: {path} does not say which detector found the objects")


def test_words_by_another_rule_and_numbers_that_round_otherwise_are_said(copy: Path) -> None:
    for name, changed in (("prepare", {"words": "space"}), ("extract", {"dtype": "float64"})):
        path = RunFolder(copy).record(name)
        record = StageRecord.read(path)
        assert record is not None
        replace(record, parameters={**record.parameters, **changed}).write(path)
    said: list[str] = []
    scored(model_of(copy), copy, said)
    assert [line.split(":")[0] for line in said] == ["note", "note"]
    assert f"raw texts of {copy} become words by the rule 'space'" in "".join(said)
    assert "dtype: " in "".join(said)


def test_a_model_of_features_of_earlier_boxes_does_not_name_the_detector_of_later_ones(copy: Path) -> None:
    """Its posts would be seen with boxes such as it never saw."""
    bring_up_to_date(copy, "detect", min_score=0.99)
    stages = ("detect", "extract")
    assert "detect" not in made_by(RunFolder(copy), stages)
    bring_up_to_date(copy, "extract")
    assert made_by(RunFolder(copy), stages)["detect"]["parameters"]["min_score"] == 0.99


def test_boxes_that_extract_has_not_read_yet_say_nothing_of_the_features(copy: Path) -> None:
    bring_up_to_date(copy, "detect", min_score=0.99)
    said: list[str] = []
    scored(model_of(copy), copy, said)
    assert len(said) == 1
    assert f"note: which detector found the objects of {copy} is not recorded" in said[0]


def test_what_a_text_only_system_cannot_do_is_one_sentence(run: Path) -> None:
    for shuffle, explain in ((True, False), (False, True)):
        with pytest.raises(InputError, match="bert-crf reads no images"):
            evaluate(model_of(run, TEXT), RunFolder(run), shuffle_images=shuffle, explain=explain)


def test_a_split_that_is_not_there_is_named_with_those_that_are(run: Path) -> None:
    with pytest.raises(InputError, match="has no dev split; it has test, train, valid"):
        evaluate(model_of(run), RunFolder(run), split="dev")


def rename_a_label(model: Path) -> str:
    """Rename a type in the model's own configuration; return its old name."""
    config = json.loads((model / "config.json").read_text())
    old = next(label[2:] for label in config["labels"] if label != "O")
    labels = [label.replace(f"-{old}", "-RENAMED") for label in config["labels"]]
    (model / "config.json").write_text(json.dumps({**config, "labels": labels}))
    return str(old)


def rewrite_samples(run: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = RunFolder(run).samples
    write_table(path, table_of(SAMPLES, map(change, read_table(path, SAMPLES).to_pylist())))


def test_a_model_whose_labels_were_changed_is_not_scored(copy: Path, run: Path, tmp_path: Path) -> None:
    old = rename_a_label(model_of(copy, TEXT))
    with pytest.raises(StageError, match=r"config\.json has changed since train-bert-crf-seed-1 wrote it"):
        scored(model_of(copy, TEXT), copy)
    # Without the record, the labels of the run's training split tell.
    RunFolder(copy).record("train-bert-crf-seed-1").unlink()
    with pytest.raises(StageError, match=rf"only one of them has B-{old}, B-RENAMED, I-{old}, I-RENAMED"):
        scored(model_of(copy, TEXT), copy)
    # Elsewhere, the labels that are scored do.
    said: list[str] = []
    moved = Path(shutil.copytree(model_of(copy, TEXT), tmp_path / "moved"))
    scored(moved, run, said)
    assert any("labels that the model does not know" in line and f"B-{old}" in line for line in said)


@pytest.mark.parametrize("pixels", [False, True])
def test_weights_that_are_not_those_that_training_wrote_are_not_scored(copy: Path, pixels: bool) -> None:
    model = finetuned_of(copy) if pixels else model_of(copy)
    other = finetuned_of(copy) if not pixels else model_of(copy)
    shutil.copy(other / "model.safetensors", model)
    with pytest.raises(StageError, match=r"model\.safetensors has changed since \w+-hmnet-seed-1"):
        scored(model, copy, pixels=pixels)


def test_labels_that_prepare_has_read_since_are_named(copy: Path) -> None:
    """The labels of the texts were renamed after the training."""

    def renamed(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "tags": [tag.replace("-", "-NEW") for tag in row["tags"]]}

    rewrite_samples(copy, renamed)
    with pytest.raises(StageError, match=r"only one of them has .*B-NEW"):
        scored(model_of(copy, TEXT), copy)


def test_data_of_which_the_model_knows_no_label_are_refused(copy: Path, run: Path) -> None:
    rewrite_samples(copy, lambda row: {**row, "tags": [tag.replace("-", "-NEW") for tag in row["tags"]]})
    with pytest.raises(StageError, match="knows none of the labels of the test split"):
        scored(model_of(run, TEXT), copy)


def test_a_run_that_has_become_one_of_the_other_task_is_refused(copy: Path) -> None:
    config = copy / "run.toml"
    config.write_text(config.read_text().replace('task = "ner"', 'task = "re"'))
    with pytest.raises(InputError, match=r"trained for task ner, and .*run\.toml is of task re"):
        evaluate_trial(RunFolder(copy), TEXT, RunFolder(copy))


def test_a_trial_that_is_not_there_is_answered_with_the_command_that_trains_it(copy: Path) -> None:
    missing = Trial("bert-crf", 3, shots=50, subset_seed=2)
    words = "--system bert-crf --seed 3 --shots 50 --subset-seed 2"
    with pytest.raises(InputError, match=rf"does not exist; run `hmnet-pipe train {copy} {words}` first"):
        evaluate_trial(RunFolder(copy), missing, RunFolder(copy))


def test_a_recorded_evaluation_is_fresh_until_the_model_the_samples_or_the_features_change(
    copy: Path,
) -> None:
    run, model = RunFolder(copy), model_of(copy)
    precision = stage_of(copy, "train").parameters()["precision"]

    def is_fresh(precision: str = precision, negative: str = "") -> bool:
        causes = causes_of(model, "hmnet", run, "pyramid", precision, negative)
        return fresh_evaluation(path, causes) is not None

    _, path = evaluate(model, run)
    assert is_fresh()
    assert not is_fresh("fp64")
    assert not is_fresh(negative="no_relation")
    bring_up_to_date(copy, "extract", dtype="float32")
    assert not is_fresh()
    bring_up_to_date(copy, "extract", dtype="float16")
    assert is_fresh()
    bring_up_to_date(copy, "train", learning_rate=1e-3)
    assert not is_fresh()
    assert evaluate(model, run)[1] == path
    assert is_fresh()


def test_recorded_scores_are_those_that_were_returned_and_are_read_without_torch(copy: Path) -> None:
    model = model_of(copy)
    expected = {}
    for name, split, shuffled in (
        ("test", "test", False),
        ("test-shuffled", "test", True),
        ("valid", "valid", False),
    ):
        expected[name] = evaluate(model, RunFolder(copy), split=split, shuffle_images=shuffled)[0]
    found = dict(recorded_evaluations(model))
    assert list(found) == list(expected)
    assert {name: one.scores for name, one in found.items()} == expected
    other = found["test-shuffled"]
    assert (other.system, other.split, other.shuffled_images) == ("hmnet", "test", True)
    program = (
        "import json, sys; from pathlib import Path\n"
        "from hmnet_pipe.stages.evaluate.recorded import recorded_evaluations\n"
        "print(json.dumps({name: one.scores for name, one in recorded_evaluations(Path(sys.argv[1]))}))\n"
        "assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, model], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == expected
    (model / "evaluation-test.json").write_text("{")
    with pytest.raises(
        StageError, match=r"evaluation-test\.json is damaged .*run `hmnet-pipe evaluate` again"
    ):
        dict(recorded_evaluations(model))


def test_without_images_is_as_if_no_sample_had_one(copy: Path) -> None:
    model, run = model_of(copy), RunFolder(copy)
    scores, path = evaluate(model, run, no_images=True)
    assert path.name == "evaluation-test-without-images.json"
    assert Evaluation.read(path).without_images
    without = read_table(path.with_suffix(".parquet"), PREDICTIONS).to_pylist()
    assert not any(row["has_image"] for row in without)
    rewrite_samples(copy, lambda row: {**row, "image_key": None})
    as_it_is, path = evaluate(model, run)
    assert as_it_is == scores
    assert read_table(path.with_suffix(".parquet"), PREDICTIONS).to_pylist() == without


def test_an_evaluation_leaves_each_error_with_its_probability(copy: Path) -> None:
    scores, path = evaluate(model_of(copy), RunFolder(copy), calibrate=True)
    kinds = scores["errors"]["kinds"]
    errors = read_table(path.with_name("errors-test.parquet"), ERRORS).to_pylist()
    assert len(errors) == sum(kinds.values()) - kinds["correct"] > 0
    assert scores["errors"]["schemes"]["strict"]["f1"] == pytest.approx(scores["f1"])
    found = [row for row in errors if row["predicted_type"] is not None]
    assert all((row["probability"] is None) == (row not in found) for row in errors)
    assert all(0 < row["probability"] < 1 for row in found)
    assert scores["calibration"]["as_it_is"]["count"] >= len(found)
    page = path.with_name("errors-test.md").read_text()
    assert page.startswith("# Errors of hmnet on test\n")
    assert all(row["id"] in page for row in errors)


def grounded(copy: Path, demos: Demos, folder: Path) -> RunFolder:
    """Let a run have its own texts again, in GMNER's files with the true boxes of its objects."""
    files = gmner_of(demos.corpus(sizes=SIZES), folder, sizes=SIZES)
    bring_up_to_date(copy, "prepare", text=files / "txt", format="auto", mention_boxes=str(files / "xml"))
    return RunFolder(copy)


@pytest.mark.parametrize("pixels", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_attention_is_grounded_on_the_files_of_gmner(
    copy: Path, demos: Demos, tmp_path: Path, pixels: bool
) -> None:
    """The detector knows the demonstration's objects, so that some view is right for nearly every mention."""
    run = grounded(copy, demos, tmp_path / "gmner")
    plan = stage_of(copy, "extract").plan() if pixels else None
    model = finetuned_of(copy) if pixels else model_of(copy)
    scores, path = evaluate(model, run, split="train", plan=plan, ground=True)
    found = Evaluation.read(path).scores["grounding"]
    assert found == scores["grounding"]
    boxes = read_table(run.mention_boxes, MENTION_BOXES).to_pylist()
    train = [row for row in boxes if row["id"].startswith("train")]
    assert found["mentions"] == sum(row["x0"] is not None for row in train) > 3
    assert found["not_in_image"] == sum(row["x0"] is None for row in train) > 3
    assert found["detected"] > 0.8
    assert found["chance"] < found["ceiling"] == 1
    assert 0 <= found["accuracy"] <= 1
    assert not path.with_name("explanation-train.parquet").exists()
    without = evaluate(model, run, split="train", plan=plan)[0]
    assert "grounding" not in without
    assert without == {name: value for name, value in scores.items() if name != "grounding"}


def test_an_evaluation_is_stale_once_the_boxes_of_mentions_change(
    copy: Path, demos: Demos, tmp_path: Path
) -> None:
    run, model = grounded(copy, demos, tmp_path / "gmner"), model_of(copy)
    path = evaluate(model, run, ground=True)[1]
    causes = causes_of(model, "hmnet", run, "pyramid", "")
    assert fresh_evaluation(path, causes, any_precision=True) is not None
    boxes = read_table(run.mention_boxes, MENTION_BOXES)
    write_table(run.mention_boxes, boxes.slice(1))
    causes = causes_of(model, "hmnet", run, "pyramid", "")
    assert fresh_evaluation(path, causes, any_precision=True) is None


def test_what_cannot_be_grounded_is_refused_before_it_is_scored(copy: Path) -> None:
    model, run = model_of(copy), RunFolder(copy)
    with pytest.raises(InputError, match=r"bert-crf reads no images: there is no gate and no attention"):
        evaluate(model_of(copy, TEXT), run, ground=True)
    with pytest.raises(InputError, match=r"run `hmnet-pipe prepare .*run --mention-boxes FOLDER`"):
        evaluate(model, run, ground=True)
    assert "grounding" not in evaluate(model, run)[0]
    assert evaluate(model, run, ground=None)[0]["grounding"] is None
    write_table(run.mention_boxes, MENTION_BOXES.empty_table())
    with pytest.raises(InputError, match=r"no mention of the test split of .* has a box"):
        evaluate(model, run, ground=True)
    for images in ("shuffle_images", "no_images"):
        with pytest.raises(InputError, match=r"boxes of mentions are of the samples' own images"):
            evaluate(model, run, ground=True, **{images: True})  # type: ignore[arg-type]
