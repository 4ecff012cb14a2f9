"""Systems that read a tree of each text have each image of a file of posts detected and extracted once."""

import json
import shutil
from pathlib import Path

import pytest
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.predict.command import predict_file
from hmnet_pipe.pipeline.predict.part import Models
from hmnet_pipe.pipeline.predict.predictor import PredictOptions
from hmnet_pipe.pipeline.predict.stage import Source
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.graph import stage_named
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT, ProgressBar, Tools
from hmnet_pipe.stages.learning.inputs import makers
from hmnet_pipe.stages.systems.registry import SYSTEMS

from ...running import Demos, bring_up_to_date, configure, model_of

pytestmark = pytest.mark.slow

SIZES = {"train": 16, "valid": 6, "test": 6}
MEGA = Trial("mega")


def test_each_image_is_made_into_features_once_and_each_part_has_its_own_trees(
    demos: Demos, tiny_encoder: Path, tmp_path: Path
) -> None:
    run = RunFolder(Path(shutil.copytree(demos.run("re", SIZES), tmp_path / "run")))
    configure(run.path, "train", encoder=str(tiny_encoder), epochs=1, first_evaluation=1, precision="fp32")
    info = SYSTEMS[MEGA.system]
    for name in makers(info, info.feature_set()):
        run_stage(stage_named(RunConfig.read(run.config), run, name), SILENT)
    bring_up_to_date(run.path, "train", trial=MEGA)
    paths = {row["key"]: row["path"] for row in read_table(run.images, IMAGES).to_pylist()}
    rows = [row for row in read_table(run.samples, SAMPLES).to_pylist() if row["image_key"]]
    posts = tmp_path / "posts.jsonl"
    with posts.open("w") as file:
        for row in rows:
            post = {name: row[name] for name in ("tokens", "head", "tail")}
            file.write(json.dumps({**post, "image": paths[row["image_key"]]}) + "\n")
    bars: list[tuple[str, int]] = []

    def bar(total: int, what: str, unit: str) -> ProgressBar:
        bars.append((what, total))
        return SILENT.bar(total, what, unit)

    models = Models(str(model_of(run.path, MEGA)), None, "", "", "", "cpu", "auto", PredictOptions())
    predict_file(models, Source(posts, None), tmp_path / "out", 10, Tools(bar=bar))
    images = len({row["image_key"] for row in rows})
    assert images > 10
    assert [one for one in bars if one[0] in ("detect", "extract")] == [
        ("detect", images),
        ("extract", images),
    ]
    found = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    find = models.open()
    whole = find([json.loads(line) for line in posts.open()])
    for line, result in zip(found, whole, strict=True):
        assert line["image_status"] == "used"
        assert [one["relation"] for one in line["relations"]] == [one.relation for one in result.relations]
        scores = [one.score for one in result.relations]
        assert [one["score"] for one in line["relations"]] == pytest.approx(scores, abs=1e-5)
        assert scores
