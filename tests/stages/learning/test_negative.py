"""The negative relation counts as nothing to find under any name, and where there is none, that is said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.report.text import score_table, trials_table
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.new import prepare_config, prepare_run
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.evaluate.evaluation import evaluate
from hmnet_pipe.stages.learning.negative import NEGATIVE_NAMES, negative_relation
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.scores import score_relations
from hmnet_pipe.stages.prepare.settings import PrepareSettings
from hmnet_pipe.stages.train.stage import Train

MTB = Trial("mtb")


@pytest.mark.parametrize("name", [*NEGATIVE_NAMES, "keine"])
def test_the_negative_relation_counts_as_nothing_under_any_name(name: str) -> None:
    gold, guess = ["None", "None", "/per/loc", "/per/org"], ["None", "/per/loc", "/per/loc", "None"]
    expected = score_relations(gold, guess, negative="None")
    assert (expected["precision"], expected["recall"]) == (0.5, 0.5)
    named = [[name if relation == "None" else relation for relation in each] for each in (gold, guess)]
    assert score_relations(*named, negative=name) == {**expected, "negative": name}
    always = [name] * 4
    assert score_relations(named[0], always, negative=name)["f1"] == 0.0
    assert score_relations(named[0], always, negative=None)["f1"] == 0.5, "the fault: it counts as found"


def test_it_is_the_given_one_or_known_by_its_name() -> None:
    assert negative_relation(["/per/loc", "no_relation"]) == "no_relation"
    assert negative_relation(["/per/loc", "no_relation"], "/per/loc") == "/per/loc"
    assert negative_relation(["Other", "None", "/per/loc"]) == "None", "Other may be one among others"
    assert negative_relation(["/per/loc", None, "nothing"]) is None


def rows(negative: str) -> list[dict[str, Any]]:
    facts = {"task": "re", "tokens": ["ada", "in", "paris"], "head": (0, 1), "tail": (2, 3)}
    return [
        {"id": f"{split}-{i}", "split": split, "relation": (negative, "/per/loc")[i % 2], **facts}
        for split, count in (("train", 4), ("valid", 2), ("test", 3))
        for i in range(count)
    ]


def stage_of(folder: Path, encoder: Path, negative: str, given: str = "") -> Train:
    run = RunFolder(folder)
    write_table(run.samples, table_of(SAMPLES, rows(negative)))
    recipe = TrainSettings(encoder=str(encoder), epochs=1, max_length=16, precision="fp32", device="cpu")
    return Train(run, recipe, "re", MTB, given)


def trained(stage: Train, said: list[str] | None = None) -> dict[str, Any]:
    """Train, and return metrics.json."""
    stage.compute(stage.causes(), Tools(say=(said if said is not None else []).append))
    metrics: dict[str, Any] = json.loads((stage.place / "metrics.json").read_text())
    return metrics


def test_a_training_is_scored_with_the_negative_relation_of_its_data(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    expected = trained(stage_of(tmp_path / "None", tiny_encoder, "None"))
    assert expected["test"]["negative"] == "None"
    assert expected["test"]["support"] == 1
    for name, given in (("NA", ""), ("keine", "keine")):
        stage = stage_of(tmp_path / name, tiny_encoder, name, given)
        assert trained(stage)["test"]["support"] == 1
        scores, path = evaluate(stage.place, stage.run, negative=given, device="cpu", precision="fp32")
        assert (scores["negative"], scores["support"]) == (name, 1)
        assert json.loads(path.read_text())["scores"]["negative"] == name


def test_without_one_training_evaluation_and_tables_say_so(tmp_path: Path, tiny_encoder: Path) -> None:
    said: list[str] = []
    stage = stage_of(tmp_path, tiny_encoder, "keine")
    metrics = trained(stage, said)
    assert (metrics["test"]["negative"], metrics["test"]["support"]) == (None, 3)
    scores, _ = evaluate(stage.place, stage.run, device="cpu", precision="fp32")
    for text in ("\n".join(said), score_table(scores), trials_table([metrics])):
        assert "each one counts as found" in text
    named = {**metrics, "valid": None, "test": {**metrics["test"], "negative": "keine"}}
    assert "note" not in trials_table([named])


def test_a_model_that_was_trained_with_another_negative_relation_is_not_scored(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    stage = stage_of(tmp_path, tiny_encoder, "None")
    trained(stage)
    with pytest.raises(StageError, match="'None' as the negative relation, and here it is '/per/loc'"):
        evaluate(stage.place, stage.run, negative="/per/loc", device="cpu")


def test_only_data_that_call_it_otherwise_than_none_have_another_fingerprint(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    for name, given, expected in (
        ("None", "", None),
        ("None", "None", None),
        ("keine", "", None),
        ("NA", "", "NA"),
        ("keine", "keine", "keine"),
    ):
        stage = stage_of(tmp_path, tiny_encoder, name, given)
        assert stage.parameters().get("negative") == expected
    assert "negative" not in replace(stage, task="ner").parameters()


def write_texts(folder: Path, negative: str) -> None:
    folder.mkdir()
    for split in ("train", "valid", "test"):
        lines = [
            {key: row[key] for key in ("id", "tokens", "head", "tail", "relation")}
            for row in rows(negative)
            if row["split"] == split
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def prepared(run: Path, texts: Path | None, negative: str | None = None) -> str:
    """Prepare a run as the command does; return what was said."""
    said: list[str] = []
    folder = RunFolder(run)
    config = prepare_config(folder, "custom", "re", texts, None, "auto", {"negative": negative})
    report = prepare_run(folder, config, Tools(say=said.append))
    known = config.of(PrepareSettings).negative or ("no_relation" if run.name == "run-1" else None)
    assert report.details.get("negative relation") == known
    return "\n".join(said)


def test_prepare_says_whether_there_is_one_and_keeps_the_name_in_run_toml(tmp_path: Path) -> None:
    write_texts(tmp_path / "known", "no_relation")
    assert "counts as found" not in prepared(tmp_path / "run-1", tmp_path / "known")
    write_texts(tmp_path / "unknown", "keine")
    assert "each one counts as found" in prepared(tmp_path / "run-2", tmp_path / "unknown")
    assert prepared(tmp_path / "run-3", tmp_path / "unknown", "keine") == ""
    run = RunFolder(tmp_path / "run-3")
    for texts in (None, tmp_path / "unknown"):  # preparing again forgets nothing
        prepared(run.path, texts)
        config = RunConfig.read(run.config)
        assert config.of(PrepareSettings).negative == "keine"
        assert config.stage("train", run, MTB).parameters()["negative"] == "keine"
    assert "no text has the relation 'kiene'" in prepared(tmp_path / "run-4", tmp_path / "unknown", "kiene")
