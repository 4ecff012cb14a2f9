"""The user's scene graphs and trees, which lie elsewhere on another machine, when a run is made again."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.reproduce.lock import lock_run, read_lock
from hmnet_pipe.pipeline.reproduce.reproduce import Reproduction, reproduce
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT
from safetensors.numpy import save_file

from ...running import Demos, begin, bring_up_to_date

FILES = {
    "boxes": "boxes.jsonl",
    "graphs": "graphs.jsonl",
    "graph_features": "features.safetensors",
    "parser_model": "trees.conllu",
}


def write_files(run: RunFolder, folder: Path) -> None:
    """Write a box, a scene graph and a tree of everything in a run; one of each is refused or missing."""
    folder.mkdir()
    keys = [image["key"] for image in read_table(run.images, IMAGES).to_pylist()]
    boxes = [{"image": key, "box": [0, 0, 9, 9], "label": "man", "score": 0.5} for key in [*keys, "none"]]
    (folder / FILES["boxes"]).write_text("".join(json.dumps(box) + "\n" for box in boxes))
    records = []
    for number, image in enumerate(read_table(run.images, IMAGES).to_pylist()):
        size = {"width": image["width"], "height": image["height"]}
        thing = {"box": [0, 0, 9, 9], "label": "man", "score": 0.5, "feature": number}
        records.append({"schema": "scene-graph/1", "image": image["key"], **size, "objects": [thing]})
    values = np.ones((len(records), 5), np.float32)
    records.append({"schema": "scene-graph/2"})
    (folder / FILES["graphs"]).write_text("".join(json.dumps(record) + "\n" for record in records))
    save_file({"object_features": values}, folder / FILES["graph_features"])
    trees = []
    for row in read_table(run.samples, SAMPLES).to_pylist()[1:]:
        words = (f"{i}\t{word}\t_\t_\t_\t_\t{i - 1}\tdep\t_\t_" for i, word in enumerate(row["tokens"], 1))
        trees.append("\n".join([f"# sample_id = {row['id']}", *words]))
    (folder / FILES["parser_model"]).write_text("\n\n".join(trees) + "\n\n")


def test_graphs_and_trees_are_compared_first_and_named_by_options_where_they_lie_elsewhere(
    demos: Demos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = demos.corpus("re", {"train": 3, "valid": 1, "test": 1})
    run = RunFolder(begin(tmp_path / "run", corpus, "re"))
    bring_up_to_date(run.path, "prepare")
    here, there = tmp_path / "here", tmp_path / "there"
    write_files(run, here)
    places = {name: str(here / file) for name, file in FILES.items()}
    graphs: dict[str, Any] = {"graphs": places["graphs"], "features": places["graph_features"]}
    bring_up_to_date(run.path, "detect", boxes=places["boxes"])
    bring_up_to_date(run.path, "scenes", **graphs)
    bring_up_to_date(run.path, "dependencies", parser="conllu", model=places["parser_model"])
    config = RunConfig.read(run.config).override("extract", {"precision": "fp32"})
    config.write(run.config)
    run_stage(config.stage("extract", run, "scene-vector"), SILENT)
    lock = lock_run(run, tmp_path / "a.lock")
    stages = ["prepare", "detect", "scenes", "dependencies", "extract-scene-vector"]
    assert list(read_lock(lock)["stages"]) == stages
    assert str(tmp_path) not in lock.read_text()
    shutil.move(here, there)
    monkeypatch.chdir(tmp_path)

    def again(name: str, **given: Any) -> Reproduction:
        folder = RunFolder(tmp_path / name)
        return reproduce(lock, folder, text=corpus, images=corpus / "images", tools=SILENT, **given)

    for missing, option in (
        ("boxes", "--boxes FILE"),
        ("graphs", "--graphs FILE"),
        ("graph_features", "--graph-features FILE"),
        ("parser_model", "--parser-model FILE"),
    ):
        given = {name: f"there/{file}" for name, file in FILES.items() if name != missing}
        with pytest.raises(InputError, match=rf"of the lock, with the digest \w+, is not here.*{option}"):
            again("a", **given)
        assert not (tmp_path / "a").exists()
    given = {name: f"there/{file}" for name, file in FILES.items()}
    result = again("b", **given)
    assert result.reproduced, result.lines()
    # What was refused is listed with its file and line.
    assert [(one.group, one.what) for one in result.comparisons if one.state != "equal"] == [
        ("detect", "problems"),
        ("scenes", "problems"),
        ("dependencies", "problems"),
    ]
    (there / FILES["parser_model"]).write_bytes((there / FILES["parser_model"]).read_bytes() + b"# more\n\n")
    other = again("c", **given)
    assert [one.what for one in other.different] == ["file of trees"]
    assert not RunFolder(tmp_path / "c").samples.exists()
