"""Training on graphs: by geometry and a chain, or by the user's scene graphs with features of their own."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hmnet_pipe.cache.reader import FeatureCache, read_index
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, SCENES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.checks.status import run_status
from hmnet_pipe.pipeline.checks.verify import verify_run
from hmnet_pipe.pipeline.report.text import trials_table
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.graph import stages_of, view_source
from hmnet_pipe.pipeline.run.runner import run_stage, run_together
from hmnet_pipe.pipeline.run.trainings import finished_trainings
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.evaluate.evaluation import evaluate
from hmnet_pipe.stages.learning.made_by import makers_of
from safetensors.numpy import save_file

from ...running import Demos, bring_up_to_date, configure, model_of

MEGA = Trial("mega")
SIZES = {"train": 12, "valid": 4, "test": 4}


@pytest.fixture(scope="module")
def prepared(demos: Demos, tiny_encoder: Path) -> Path:
    folder = demos.run("re", SIZES, train={"encoder": str(tiny_encoder), "precision": "fp32"})
    return folder


@pytest.fixture
def run(prepared: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(prepared, tmp_path / "run"))
    configure(folder, "train", epochs=1, first_evaluation=1, batch_size=4)
    run_stage(RunConfig.read(folder / "run.toml").stage("extract", RunFolder(folder), "vector"), Tools())
    return folder


def test_geometry_and_a_chain_stand_in_the_name_and_scores_come_again(run: Path) -> None:
    with pytest.raises(StageError, match="hmnet-pipe scenes"):
        bring_up_to_date(run, "train", trial=MEGA)
    bring_up_to_date(run, "scenes")
    with pytest.raises(StageError, match="hmnet-pipe dependencies"):
        bring_up_to_date(run, "train", trial=MEGA)
    bring_up_to_date(run, "dependencies")
    bring_up_to_date(run, "train", trial=MEGA)
    folder = model_of(run, MEGA)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["qualifiers"] == ["geometry", "chain"]
    table = trials_table(finished_trainings(RunFolder(run))).splitlines()
    assert table[2].startswith("mega[geometry, chain]  ")
    scores, path = evaluate(folder, RunFolder(run), precision="fp32", explain=True)
    assert {**scores, "errors": None} == {**metrics["test"], "errors": None}
    assert path.exists()
    record = StageRecord.read(RunFolder(run).record("train-mega-seed-1"))
    assert {"samples", "features", "scenes", "dependencies"} == set(record.inputs)
    assert bring_up_to_date(run, "train", trial=MEGA).state == "fresh"
    names = [stage.name for stage in stages_of(RunConfig.read(run / "run.toml"), RunFolder(run))]
    assert {"scenes", "dependencies"} < set(names)
    bring_up_to_date(run, "scenes", objects=2)
    assert bring_up_to_date(run, "train", trial=MEGA).state == "done"


def graphs_of(run: Path, folder: Path, tool: str = "", seed: int = 0) -> dict[str, Any]:
    """Write a scene graph of every image, of two objects with features of width 5; return their options."""
    folder.mkdir(exist_ok=True)
    named = {"tool": tool} if tool else {}
    lines = []
    for number, image in enumerate(read_table(RunFolder(run).images, IMAGES).to_pylist()):
        size = {"width": image["width"], "height": image["height"]}
        things = [
            {"box": [0, 0, 9 + i, 9], "label": label, "score": 0.5 - i / 10, "feature": 2 * number + i}
            for i, label in enumerate(("man", "horse"))
        ]
        riding = [{"subject": 0, "predicate": "riding", "object": 1, "score": 0.5}]
        record = {"schema": "scene-graph/1", "image": image["key"], **size, "objects": things}
        lines.append(json.dumps({**record, "relations": riding, **named}))
    (folder / "graphs.jsonl").write_text("\n".join(lines))
    values = np.random.default_rng(seed).normal(size=(2 * len(lines), 5)).astype(np.float32)
    save_file({"object_features": values}, folder / "features.safetensors")
    return {"graphs": str(folder / "graphs.jsonl"), "features": str(folder / "features.safetensors")}


def test_the_users_scene_graphs_are_read_with_their_own_features(run: Path, tmp_path: Path) -> None:
    options = graphs_of(run, tmp_path)
    trial = replace(Trial("bert-sg-edges"), features="scenes")
    bring_up_to_date(run, "scenes", **options)
    assert set(read_table(RunFolder(run).scenes, SCENES)["source"].to_pylist()) == {"scene-graph"}
    bring_up_to_date(run, "train", trial=trial)
    folder = model_of(run, trial)
    config = json.loads((folder / "config.json").read_text())
    assert config["levels"] == [5]
    assert config["options"]["predicates"] == ["riding"]
    assert config["options"]["object_labels"] == ["horse", "man"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["qualifiers"] == ["scene-graph"]
    scores = evaluate(folder, RunFolder(run), feature_set="scenes", precision="fp32")[0]
    assert {**scores, "errors": None} == {**metrics["test"], "errors": None}
    names = [stage.name for stage in stages_of(RunConfig.read(run / "run.toml"), RunFolder(run))]
    assert names.count("scenes") == 1
    assert "extract-scenes" not in names


def test_features_of_another_tool_are_told_from_those_that_a_model_was_trained_on(
    run: Path, tmp_path: Path
) -> None:
    """Their width is the same: only the tool that the records name, or the file, tells them apart."""
    other = Path(shutil.copytree(run, tmp_path / "other"))
    trial = replace(Trial("bert-sg"), features="scenes")

    def scored(trained_on: dict[str, Any], given: dict[str, Any]) -> None:
        bring_up_to_date(run, "scenes", **trained_on)
        bring_up_to_date(run, "train", trial=trial)
        bring_up_to_date(other, "scenes", **given)
        evaluate(model_of(run, trial), RunFolder(other), feature_set="scenes", precision="fp32")

    unnamed = graphs_of(run, tmp_path / "a")
    scored(unnamed, unnamed)
    with pytest.raises(StageError, match=r"have weights '\w{64}', and the model was trained on .*\"tool\""):
        scored(unnamed, graphs_of(run, tmp_path / "b", seed=1))
    motifs = graphs_of(run, tmp_path / "c", "motifs 1")
    scored(motifs, graphs_of(run, tmp_path / "d", "motifs 1", seed=1))
    with pytest.raises(StageError, match="have weights 'vctree 1', and the model was trained on 'motifs 1'"):
        scored(motifs, graphs_of(run, tmp_path / "e", "vctree 1"))


def boxes_of(run: RunFolder) -> dict[str, list[Any]]:
    """Return the boxes of each image's scene in pixels."""
    images = read_table(run.images, IMAGES).to_pylist()
    sides = {row["key"]: (row["width"], row["height"]) * 2 for row in images}
    found = {}
    for row in read_table(run.scenes, SCENES).to_pylist():
        key = row["image_key"]
        found[key] = [[x * side for x, side in zip(b, sides[key], strict=True)] for b in row["boxes"]]
    return found


def test_scene_graphs_without_features_get_those_of_their_own_boxes(run: Path, tmp_path: Path) -> None:
    """Some images have a graph and the others their geometry: each box is seen by the backbone itself."""
    folder, trial = RunFolder(run), replace(Trial("bert-sg-edges"), features="scene-vector")
    graphs = Path(graphs_of(run, tmp_path)["graphs"])
    graphs.write_text("\n".join(graphs.read_text().splitlines()[::2]))
    bring_up_to_date(run, "scenes", graphs=str(graphs), missing="geometry")
    with pytest.raises(StageError, match=r"hmnet-pipe extract .* --features scene-vector` first"):
        bring_up_to_date(run, "train", trial=trial)
    config = RunConfig.read(folder.config)
    stages = [view_source(config, folder, name) for name in ("grid", "scene-vector", "vector")]
    run_together(stages, Tools())
    cache = FeatureCache(folder.features("scene-vector"))
    assert (cache.spec.regions, cache.spec.views, cache.spec.pooled) == ("scene", 10, 1)
    units, boxes = {unit.key: unit for unit in stages[1].images()}, boxes_of(folder)
    assert {key: [list(box) for box in unit.boxes] for key, unit in units.items()} == boxes
    # In one pass, each set has the boxes that it is of.
    for stage in stages:
        made_from = {row.image_key: row.inputs for row in read_index(stage.place)[1]}
        assert made_from == {unit.key: unit.inputs for unit in stage.images()}
    _, mask = cache.gather(sorted(boxes))
    assert mask.sum(axis=1).tolist() == [len(boxes[key]) for key in sorted(boxes)]
    bring_up_to_date(run, "train", trial=trial)
    metrics = json.loads((model_of(run, trial) / "metrics.json").read_text())
    assert metrics["qualifiers"] == ["scene-graph+geometry"]
    scores = evaluate(model_of(run, trial), folder, feature_set="scene-vector", precision="fp32")[0]
    assert {**scores, "errors": None} == {**metrics["test"], "errors": None}
    names = [stage.name for stage in stages_of(RunConfig.read(folder.config), folder)]
    assert names.index("scenes") < names.index("extract-scene-vector")
    assert {one.state for one in run_status(folder).stages} == {"fresh"}
    assert verify_run(folder) == []
    # Some of its boxes are the detector's, which is compared where the model is scored.
    read = ("detect", "scenes", "extract-scene-vector")
    assert makers_of(folder, read)["detect"] == makers_of(folder, ("detect", "extract"))["detect"]
    with pytest.raises(StageError, match=r"without such a file, .* --features scene-vector"):
        bring_up_to_date(run, "train", trial=replace(trial, features="scenes"))
    # With other scenes, these features are those of other objects until they are computed again.
    bring_up_to_date(run, "scenes", missing="empty")
    assert "detect" not in makers_of(folder, read)
    with pytest.raises(StageError, match="shows the objects of other scenes"):
        bring_up_to_date(run, "train", trial=trial)
    report = run_stage(config.stage("extract", folder, "scene-vector"), Tools())
    assert 0 < report.done < len(units)
    assert bring_up_to_date(run, "train", trial=trial).state == "done"


def test_objects_are_never_paired_with_features_of_others(run: Path, tmp_path: Path) -> None:
    bring_up_to_date(run, "scenes", **graphs_of(run, tmp_path))
    with pytest.raises(StageError, match="train bert-sg with --features scene-vector"):
        bring_up_to_date(run, "train", trial=Trial("bert-sg"))
