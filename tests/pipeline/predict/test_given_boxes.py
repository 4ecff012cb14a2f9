"""predict with a model that was trained on boxes that another detector found."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, IMAGES, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.predict.command import streamed
from hmnet_pipe.pipeline.predict.part import Models
from hmnet_pipe.pipeline.predict.predictor import PredictOptions
from hmnet_pipe.pipeline.predict.stage import Source

from ...running import Demos

pytestmark = pytest.mark.slow


def test_a_model_of_given_boxes_needs_those_of_the_posts(
    demos: Demos, tiny_encoder: Path, tmp_path: Path
) -> None:
    """With the boxes that its detector finds, as a file, it predicts what it predicts with the detector."""
    run = RunFolder(demos.trained(tiny_encoder, "ner"))
    names = {row["key"]: Path(row["path"]) for row in read_table(run.images, IMAGES).to_pylist()}
    boxes = tmp_path / "boxes.jsonl"
    rows = [
        {
            "image": names[row["image_key"]].name,
            "box": [row["x0"], row["y0"], row["x1"], row["y1"]],
            "label": row["label"],
            "score": row["score"],
        }
        for row in read_table(run.detections, DETECTIONS).to_pylist()
    ]
    boxes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    posts = tmp_path / "posts.jsonl"
    samples = [row for row in read_table(run.samples, SAMPLES).to_pylist() if row["image_key"]][:4]
    posts.write_text(
        "".join(
            json.dumps({"text": " ".join(row["tokens"]), "image": row["image"]}) + "\n" for row in samples
        )
    )
    source = Source(posts, next(iter(names.values())).parent)
    plain = Models(str(run.model(Trial("hmnet"))), None, "", "", "", "cpu", "auto", PredictOptions())
    expected = [one.to_json() for one in streamed(plain.open(), source, 4)]
    assert any(one["objects"] for one in expected)

    given = Path(shutil.copytree(run.model(Trial("hmnet")), tmp_path / "model"))
    config: dict[str, Any] = json.loads((given / "config.json").read_text())
    detect = config["made_by"]["detect"]
    kept = {name: detect["parameters"][name] for name in ("min_score", "objects")}
    detect |= {"parameters": {"detector": "file", **kept}, "weights": {}}
    detect["settings"] |= {"boxes": "/gone/boxes.json", "annotations": "/gone/annotations.json"}
    (given / "config.json").write_text(json.dumps(config))
    models = replace(plain, model=str(given))
    with pytest.raises(
        InputError, match=r"trained on boxes of a file .* use `hmnet-pipe predict --boxes FILE`"
    ):
        models.open()
    served = CliRunner().invoke(main, ["serve", str(given), "--port", "0"])
    assert served.exit_code == 2
    assert re.fullmatch(r"Error: .* use `hmnet-pipe predict --boxes FILE` .* finds its own\n", served.output)
    found = [one.to_json() for one in streamed(replace(models, boxes=str(boxes)).open(), source, 4)]
    assert found == expected
    boxes.write_text(json.dumps({**rows[0], "image": "another.jpg"}) + "\n")
    without = [one.to_json() for one in streamed(replace(models, boxes=str(boxes)).open(), source, 4)]
    assert not any(one["objects"] for one in without)
    with pytest.raises(InputError, match=r"gone\.jsonl \(--boxes\) cannot be read"):
        list(streamed(replace(models, boxes=str(tmp_path / "gone.jsonl")).open(), source, 4))
    with pytest.raises(InputError, match=r"objects that demo_fasterrcnn found.*leave --boxes out"):
        replace(plain, boxes=str(boxes)).open()
