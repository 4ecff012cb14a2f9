"""Boxes that another detector found: what is read of a file, what is refused, and what follows from it."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.detect.boxes import read_boxes
from hmnet_pipe.stages.detect.settings import DetectSettings
from hmnet_pipe.stages.learning.made_by import made_by
from hmnet_pipe.stages.vision.known import KnownImages

from ...running import begin, bring_up_to_date, configure, small_corpus, stage_of

KEY, OTHER = "a" * 64, "b" * 64
IMAGE = {"status": "ok", "reason": None}
KNOWN = KnownImages.of(
    [
        {**IMAGE, "key": KEY, "path": "/x/000000000139.jpg", "width": 100, "height": 50},
        {**IMAGE, "key": OTHER, "path": "/x/cat.png", "width": 30, "height": 40},
        {**IMAGE, "key": "c" * 64, "path": "/x/bad.png", "width": 0, "height": 0, "status": "unreadable"},
    ],
    [{"image": "photos/cat.png", "image_key": OTHER}, {"image": "gone.png", "image_key": None}],
)


def line(**changed: Any) -> dict[str, Any]:
    return {"image": "cat.png", "box": [1, 2, 11, 12], "label": "cat", "score": 0.5, **changed}


def lines_in(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def read(path: Path, count: int = 3, least: float = 0.05, annotations: Path | None = None) -> Any:
    return read_boxes(path, annotations, KNOWN, count, least)


def test_the_best_of_each_image_are_kept_as_detect_keeps_them(tmp_path: Path) -> None:
    rows = [line(score=score, label=str(i)) for i, score in enumerate((0.2, 0.9, 0.5, 0.5, 0.04))]
    rows.append(line(image="000000000139.jpg", box=[-0.5, 0, 100.75, 50], score=1))
    found = read(lines_in(tmp_path / "boxes.jsonl", rows)).detections.to_pylist()
    kept = [(row["image_key"], row["rank"], row["label"], round(row["score"], 4)) for row in found]
    # Of equal scores the first stays first, and a box ends at the edges of its image.
    assert kept == [(KEY, 0, "cat", 1), (OTHER, 0, "1", 0.9), (OTHER, 1, "2", 0.5), (OTHER, 2, "3", 0.5)]
    assert [found[0][side] for side in ("x0", "y0", "x1", "y1")] == [0, 0, 100, 50]
    few = read(tmp_path / "boxes.jsonl", 10, 0.5).detections.to_pylist()
    assert [row["label"] for row in few] == ["cat", "1", "2", "3"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "no JSON object"),
        ("[1]", "a JSON object is expected"),
        (line(image="dog.png"), "the image 'dog.png' is not one of this run"),
        (line(image="gone.png"), "the image 'gone.png' is not usable"),
        (line(image="c" * 64), "is not one of this run"),
        (line(image=7), "image must be a file name or a content key, not 7"),
        (line(box=[1, 2, 3]), "the box must be four numbers"),
        (line(box=[1, 2, "3", 4]), "the box must be four numbers"),
        ('{"image": "cat.png", "box": [1, 2, NaN, 4], "label": "cat", "score": 0.5}', "must be four numbers"),
        (line(box=[9, 2, 9, 4]), "is empty: x0 < x1"),
        (line(box=[5, 5, 32, 30]), r"lies outside the image of 30 x 40"),
        (line(box=[30, 5, 30.5, 30]), r"lies outside the image of 30 x 40"),
        (line(label=3), "label must be a text, not 3"),
        (line(label=""), "label must be a text"),
        (line(score=1.1), "score must be a number from 0 to 1, not 1.1"),
        (line(score=True), "score must be a number from 0 to 1, not True"),
        (line(score=None), "score must be a number from 0 to 1, not nothing"),
    ],
)
def test_a_wrong_row_is_a_row_of_the_failure_table_and_not_the_end(
    row: Any, reason: str, tmp_path: Path
) -> None:
    path = lines_in(tmp_path / "boxes.jsonl", ["", line(), row, line(score=0.9)])
    found = read(path)
    assert found.detections.num_rows == 2
    (problem,) = found.problems
    assert reason in problem["reason"]
    assert (problem["kind"], problem["where"]) == ("box", f"{path}:3")
    with pytest.raises(InputError, match="has no box in any of the 2 images"):
        read(lines_in(path, [row]))


def result(**changed: Any) -> dict[str, Any]:
    return {"image_id": 139, "category_id": 17, "bbox": [10, 5, 20, 30], "score": 0.5, **changed}


def test_cocos_results_are_read_by_the_names_of_files_and_its_own_numbers(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    rows = [result(), result(image_id="cat", category_id=1, bbox=[0, 0, 30, 40]), result(image_id=KEY)]
    wrong = [
        result(image_id=140),
        result(image_id=None),
        result(category_id=12),  # a number that COCO left unused
        result(category_id=0),
        result(category_id="cat"),
        result(bbox=[1, 2, 3]),
        result(bbox=None),
        result(bbox=[90, 5, 20, 10]),
        result(score=-0.1),
        7,
    ]
    path.write_text(json.dumps([*rows, *wrong]))
    found = read(path)
    labels = [(row["image_key"], row["label"]) for row in found.detections.to_pylist()]
    assert labels == [(KEY, "cat"), (KEY, "cat"), (OTHER, "person")]
    first = found.detections.to_pylist()[0]
    assert [first[side] for side in ("x0", "y0", "x1", "y1")] == [10, 5, 30, 35]
    places = [f"{path}, result {number}" for number in range(4, 4 + len(wrong))]
    assert [problem["where"] for problem in found.problems] == places
    path.write_text("{}")
    with pytest.raises(InputError, match="must hold a list, as COCO's results are"):
        read(path)


def test_cocos_annotations_say_what_the_ids_are(tmp_path: Path) -> None:
    path, annotations = tmp_path / "results.json", tmp_path / "annotations.json"
    path.write_text(json.dumps([result(image_id=5, category_id=900), result(image_id=139)]))
    names = {"images": [{"id": 5, "file_name": "val/cat.png"}], "categories": [{"id": 900, "name": "lynx"}]}
    annotations.write_text(json.dumps(names))
    found = read(path, annotations=annotations)
    assert [(row["image_key"], row["label"]) for row in found.detections.to_pylist()] == [(OTHER, "lynx")]
    assert [problem["reason"] for problem in found.problems] == ["image_id 139 is no image that is known"]
    annotations.write_text("[]")
    with pytest.raises(InputError, match="lacks images with id and file_name"):
        read(path, annotations=annotations)
    with pytest.raises(InputError, match="annotations say what ids in COCO's results are"):
        DetectSettings(boxes="boxes.jsonl", annotations=str(annotations))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    corpus = small_corpus(tmp_path / "corpus", sizes={"train": 3, "valid": 1, "test": 1})
    run = RunFolder(begin(tmp_path / "run", corpus))
    bring_up_to_date(run.path, "prepare")
    return run


def no_work(*_: Any) -> Any:
    raise AssertionError("a worker was asked for")


def test_a_files_boxes_are_the_detections_of_a_run(run: RunFolder, tmp_path: Path) -> None:
    images = read_table(run.images, IMAGES).to_pylist()
    rows = [line(image=Path(image["path"]).name, label="tree") for image in images[1:]]
    boxes = lines_in(tmp_path / "boxes.jsonl", [*rows, line(image="nowhere.png")])
    run.crops.mkdir()
    (run.crops / "old.jpg").touch()
    shown = CliRunner().invoke(main, ["detect", str(run.path), "--boxes", str(boxes), "--min-score", "0.1"])
    assert shown.exit_code == 0, shown.output
    assert f"{len(images)} images done, 0 skipped, 1 failed" in shown.output
    assert "images without one: 1" in shown.output
    found = pq.read_table(run.detections).to_pylist()
    assert [row["image_key"] for row in found] == [image["key"] for image in images[1:]]
    assert {row["status"] for row in pq.read_table(run.outcomes("detect")).to_pylist()} == {"done"}
    (problem,) = pq.read_table(run.outcomes("detect-boxes")).to_pylist()
    assert (problem["sample"], problem["where"]) == ("nowhere.png", f"{boxes}:{len(rows) + 1}")
    assert not run.crops.exists()
    stage = stage_of(run.path, "detect")
    assert stage.failures() == {problem["reason"]: 1}
    record = StageRecord.read(run.record("detect"))
    assert record is not None
    assert (
        stage.again(record, 1.0, False, RunFolder(tmp_path / "scratch"), Tools(map=no_work)).verdict
        == "equal"
    )
    made = made_by(run, ["detect"])["detect"]
    assert made["parameters"] == {"detector": "file", "min_score": 0.1, "objects": 3}
    assert made["files"] == {"boxes": record.inputs["boxes"]}
    assert made["settings"]["boxes"] == str(boxes)
    assert bring_up_to_date(run.path, "detect", Tools(map=no_work)).state == "fresh"
    lines_in(boxes, [*rows, line(image=Path(images[0]["path"]).name)])
    said: list[str] = []
    bring_up_to_date(run.path, "detect", Tools(map=no_work, say=said.append))
    assert any(said_.startswith("detect runs again because of inputs.boxes") for said_ in said), said
    assert pq.read_table(run.detections).num_rows == len(images)


def test_a_named_detector_takes_the_place_of_the_file(run: RunFolder, tmp_path: Path) -> None:
    configure(run.path, "detect", boxes=str(tmp_path / "gone.jsonl"))
    refused = CliRunner().invoke(main, ["detect", str(run.path)])
    assert refused.exit_code == 2
    assert "gone.jsonl (--boxes) cannot be read: No such file or directory; check the path" in refused.output
    both = CliRunner().invoke(
        main, ["detect", str(run.path), "--boxes", "a", "--detector", "demo_fasterrcnn"]
    )
    assert both.exit_code == 2
    shown = CliRunner().invoke(
        main, ["detect", str(run.path), "--detector", "demo_fasterrcnn", "--objects", "0"]
    )
    assert shown.exit_code == 0, shown.output
    record = StageRecord.read(run.record("detect"))
    assert record is not None
    assert record.parameters["detector"] == "demo_fasterrcnn"
    assert 'boxes = ""' in run.config.read_text()
