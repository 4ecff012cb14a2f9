"""The model card says what was trained on what, is the same each time, and never takes a person's place."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.learning.card import card_of, keep_card
from hmnet_pipe.stages.systems.batch import ModelConfig
from huggingface_hub import ModelCard

from ...running import Demos, bring_up_to_date, configure, finetuned_of, model_of

TEXT = Trial("mtb", 1)


@pytest.fixture(scope="module")
def runs(demos: Demos, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> dict[str, Path]:
    """Return a run of entities with two models, one of them from pixels, and one of relations with one."""
    found = {}
    for task in ("ner", "re"):
        folder = tmp_path_factory.mktemp("cards") / task
        shutil.copytree(demos.run(task, {"train": 16, "valid": 6, "test": 6}), folder)
        configure(folder, "train", encoder=str(tiny_encoder), epochs=1, first_evaluation=1)
        found[task] = folder
    bring_up_to_date(found["ner"], "train")
    bring_up_to_date(found["ner"], "finetune", start="pretrained", epochs=1)
    bring_up_to_date(found["re"], "train", trial=TEXT)
    return found


@pytest.fixture
def models(runs: dict[str, Path]) -> list[Path]:
    return [model_of(runs["ner"]), finetuned_of(runs["ner"]), model_of(runs["re"], TEXT)]


def rows_of(card: str) -> dict[str, list[str]]:
    """Return the cells of the tables' rows by their first one, of several the first."""
    rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in card.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in reversed(rows)}


def test_every_training_writes_a_card_that_hubs_read(models: list[Path]) -> None:
    for model, tag in zip(models, ("token-classification",) * 2 + ("text-classification",), strict=True):
        metrics = json.loads((model / "metrics.json").read_text())
        end_to_end = (model / "backbone.safetensors").is_file()
        assert (", end to end\n" in (model / "README.md").read_text()) == end_to_end
        data: Any = ModelCard.load(model / "README.md").data
        assert data.library_name == "hmnet-pipe"
        assert data.pipeline_tag == tag
        assert metrics["system"] in data.tags
        assert data.base_model is None, "the encoder is a folder here, which is no name on a hub"
        told = {(one.dataset_split, one.metric_type): one.metric_value for one in data.eval_results}
        assert told == {
            (split, name): metrics[split][name]
            for split in ("test", "valid")
            for name in ("f1", "precision", "recall")
        }


def test_a_card_holds_scores_data_recipe_and_what_made_the_features(
    models: list[Path], runs: dict[str, Path]
) -> None:
    for model, run in zip(models, (runs["ner"], runs["ner"], runs["re"]), strict=True):
        card, rows = (model / "README.md").read_text(), rows_of((model / "README.md").read_text())
        test = json.loads((model / "metrics.json").read_text())["test"]
        assert rows["overall"][:3] == [f"{test[name]:.4f}" for name in ("precision", "recall", "f1")]
        for name, scores in test["per_type"].items():
            assert rows[name][2] == f"{scores['f1']:.4f}"
        assert all(f"group {name}" in rows for name in test["per_group"])
        prepared = StageRecord.read(RunFolder(run).record("prepare"))
        assert prepared is not None
        details = prepared.facts["counts"]["details"]
        for split, identity in details["data"].items():
            assert rows[split][0] == str(details["samples per split"][split])
            assert rows[split][-1].replace("\\", "") == identity
        assert rows["epochs"] == ["1"]
        config = json.loads((model / "config.json").read_text())
        if config["features"] is not None:
            assert ["detector", "demo_fasterrcnn"] in [cells[:2] for cells in all_rows(card, "detect")]
            assert ["backbone", "demo_resnet"] in [cells[:2] for cells in all_rows(card, "extract")]
            weights = config["made_by"]["detect"]["weights"]["detector"][:12]
            assert ["weights of detector", weights] in [cells[:2] for cells in all_rows(card, "detect")]
        else:
            assert "It reads no features of images." in card


def all_rows(card: str, first: str) -> list[list[str]]:
    return [line[2:-2].split(" | ")[1:] for line in card.splitlines() if line.startswith(f"| {first} |")]


def test_no_place_and_no_time_is_in_a_card(models: list[Path], tiny_encoder: Path) -> None:
    for model in models:
        card = (model / "README.md").read_text()
        for word in (str(tiny_encoder.parent), str(model.parents[2].parent), os.uname().nodename + "\n"):
            assert word not in card
        assert not re.search(r"\d\d:\d\d|\b20[2-9]\d\b|/tmp/|/home/", card)


def test_a_card_is_no_output_and_status_and_the_next_training_take_it_as_it_is(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs["re"], tmp_path / "run"))
    card = model_of(run, TEXT) / "README.md"
    written = card.read_text()
    record = StageRecord.read(RunFolder(run).record("train-mtb-seed-1"))
    assert record is not None
    assert "README.md" not in record.outputs
    edited = written.replace("## Limits", "## Limits\n\nAda says: only for tests.")
    card.write_text(edited)
    assert bring_up_to_date(run, "train", trial=TEXT).state == "fresh"
    said: list[str] = []
    bring_up_to_date(run, "train", Tools(say=said.append), trial=TEXT, epochs=2)
    assert card.read_text() == edited, "a person's card stays"
    assert any(f"{card} is not as it was written, and stays" in line for line in said)
    card.write_text(written)
    bring_up_to_date(run, "train", trial=TEXT, epochs=1)
    assert card.read_text() == written, "the same training writes the same card"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text.replace("Limits", "limits"),
        lambda text: re.sub("<!-- written.*\n", "", text),
        lambda text: "",
    ],
)
def test_a_card_that_was_edited_in_any_way_stays(tmp_path: Path, change: Any) -> None:
    text = "# A model\n\n## Limits\n"
    assert keep_card(tmp_path, text)
    assert keep_card(tmp_path, "# Another\n\n## Limits\n"), "its own it writes anew"
    path = tmp_path / "README.md"
    path.write_text(change(path.read_text()))
    before = path.read_bytes()
    assert not keep_card(tmp_path, text)
    assert path.read_bytes() == before
    path.write_bytes(b"\xff")
    assert not keep_card(tmp_path, text)


def test_published_data_and_the_hubs_encoder_are_named_and_labels_are_no_markup() -> None:
    labels = ("O", "B-<b>|x", "I-<b>|x")
    config = ModelConfig("bert-crf", "ner", labels, (), "markers", 64, {"model_type": "bert"}, None)
    scores = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    test = {**scores, "per_type": {"<b>|x": scores}, "per_group": {}}
    metrics = {"system": "bert-crf", "best_epoch": 3, "test": test, "valid": None}
    known = {"train": "Twitter-2015 train as published by Yu et al. (2020) [5a5ddd40104b]"}
    counted = {"samples per split": {"train": 4000}, "mentions per split": {"train": {"<b>|x": 9}}}
    facts = {"counts": {"details": {"data": known, "images": 7, **counted}}}
    prepared = StageRecord("prepare", 1, {}, {}, {}, {}, facts)
    card = card_of("bert-crf seed 1", config, metrics, {"encoder": "bert-base-uncased"}, prepared)
    data: Any = ModelCard(card).data
    assert data.base_model == "bert-base-uncased"
    assert data.datasets == ["twitter-2015"]
    assert data.eval_results[0].dataset_name == "Twitter-2015"
    assert rows_of(card)[r"&lt;b>\|x"][2] == "0.5000"
    assert "<b>" not in card
