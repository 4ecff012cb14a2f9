"""The scenes stage over a small run: geometry, the user's graphs, and the ways in which a record is wrong."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hmnet_pipe.cache.reader import FeatureCache
from hmnet_pipe.manifests.errors import InputError, StageError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, IMAGES, PROBLEMS, SAMPLES, SCENES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.pipeline.run.runner import Report, run_stage
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.scenes.benchmark import resized_frame
from hmnet_pipe.stages.scenes.settings import SceneSettings
from hmnet_pipe.stages.scenes.stage import Scenes
from safetensors.numpy import save_file

KEYS = [letter * 64 for letter in "abcd"]
SIZE = {"width": 200, "height": 100}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Return a run of four images; a man on a horse is in the first and third, c is of the test split."""
    found = RunFolder(tmp_path / "run")
    splits = {"a": "train", "b": "train", "c": "test", "d": "valid"}
    samples = [
        {"id": name, "split": split, "task": "re", "tokens": ["x"], "image": f"{name}.jpg", "image_key": key}
        for (name, split), key in zip(splits.items(), KEYS, strict=True)
    ]
    images = [{"key": key, "path": "x", **SIZE, "status": "ok"} for key in KEYS]
    man = {"rank": 0, "x0": 20.0, "y0": 10.0, "x1": 60.0, "y1": 50.0, "label": "man", "score": 0.9}
    horse = {"rank": 1, "x0": 20.0, "y0": 30.0, "x1": 100.0, "y1": 90.0, "label": "horse", "score": 0.8}
    far = {"rank": 1, "x0": 180.0, "y0": 80.0, "x1": 200.0, "y1": 100.0, "label": "horse", "score": 0.8}
    rows = [
        {"image_key": key, **row}
        for key, row in [(KEYS[0], man), (KEYS[0], horse), (KEYS[2], man), (KEYS[2], far)]
    ]
    write_table(found.samples, table_of(SAMPLES, samples))
    write_table(found.images, table_of(IMAGES, images))
    write_table(found.detections, table_of(DETECTIONS, rows))
    return found


def a_record(image: Any = "a.jpg", **changes: Any) -> dict[str, Any]:
    things = [
        {"box": [0, 0, 100, 100], "label": "woman", "score": 0.5},
        {"box": [50, 20, 200.4, 80], "label": "dog", "score": 0.7},
    ]
    relations = [{"subject": 0, "predicate": "walking", "object": 1, "score": 0.6}]
    base = {"schema": "scene-graph/1", "image": image, **SIZE, "objects": things, "relations": relations}
    return {**base, **changes}


def write_lines(folder: Path, *records: Any) -> Path:
    path = folder / "scene_graphs.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def made(run: RunFolder, **settings: Any) -> tuple[Report, list[dict[str, Any]]]:
    report = run_stage(Scenes(run, SceneSettings(**settings)), Tools())
    return report, read_table(run.scenes, SCENES).to_pylist()


def problems(run: RunFolder) -> list[dict[str, Any]]:
    return read_table(run.outcomes("scenes"), PROBLEMS).to_pylist()


def test_detections_become_scenes_with_boxes_as_shares_of_the_image(run: RunFolder) -> None:
    report, rows = made(run)
    assert [row["image_key"] for row in rows] == KEYS
    assert rows[0]["labels"] == ["man", "horse"]
    assert rows[0]["boxes"][0] == pytest.approx([0.1, 0.1, 0.3, 0.5])
    said = list(zip(rows[0]["subjects"], rows[0]["predicates"], rows[0]["objects"], strict=True))
    assert said == [(0, "overlaps", 1), (1, "overlaps", 0)]
    assert rows[1]["labels"] == []
    assert {row["source"] for row in rows} == {"geometry"}
    assert (report.done, report.failed) == (4, 0)
    assert made(run)[0].state == "fresh"


def test_labels_go_together_by_the_training_split_alone(run: RunFolder) -> None:
    """Of two training images it is ln((1 + 1)(2 + 1) / ((1 + 1)(1 + 1))); with the test image, less."""
    rows = made(run, cooccurrence=0.4)[1]
    assert rows[2]["predicates"] == ["cooccurs", "cooccurs"]
    assert rows[2]["strengths"][0] == pytest.approx(np.log(1.5) / (1 + np.log(1.5)))
    assert made(run, cooccurrence=0.41)[1][2]["predicates"] == []


def test_a_threshold_is_a_cause_and_names_itself(run: RunFolder) -> None:
    made(run)
    said: list[str] = []
    run_stage(Scenes(run, SceneSettings(overlap=0.5)), Tools(say=said.append))
    assert said == ["scenes runs again because of overlap: 0.1 -> 0.5"]


def test_the_users_graphs_take_the_place_of_detections(run: RunFolder, tmp_path: Path) -> None:
    run.detections.unlink()
    path = write_lines(tmp_path, a_record(), a_record(KEYS[3]))
    said: list[str] = []
    stage = Scenes(run, SceneSettings(graphs=str(path)))
    report = run_stage(stage, Tools(say=said.append))
    rows = read_table(run.scenes, SCENES).to_pylist()
    assert [row["source"] for row in rows] == ["scene-graph", "", "", "scene-graph"]
    # By falling score, and what a relation counts follows; the box is cut at the edge of the image.
    assert rows[0]["labels"] == ["dog", "woman"]
    assert rows[0]["boxes"][0] == pytest.approx([0.25, 0.2, 1.0, 0.8])
    assert (rows[0]["subjects"], rows[0]["predicates"], rows[0]["objects"]) == ([1], ["walking"], [0])
    assert said == ["note: 2 of 4 images have no scene graph; their scenes are empty"]
    assert report.details["images by source"] == {"no graph": 2, "scene-graph": 2}
    assert list(stage.sources()) == [path]
    path.write_text(path.read_text().replace("walking", "feeding"))
    assert made(run, graphs=str(path))[0].state == "done"


def test_images_without_a_graph_are_filled_on_request_as_a_mixture(run: RunFolder, tmp_path: Path) -> None:
    path = write_lines(tmp_path, a_record("b.jpg"))
    report, rows = made(run, graphs=str(path), missing="geometry")
    assert [row["source"] for row in rows] == ["geometry", "scene-graph", "geometry", "geometry"]
    assert report.details["images by source"] == {"geometry": 3, "scene-graph": 1}


def test_parquet_with_the_same_columns_is_read_alike(run: RunFolder, tmp_path: Path) -> None:
    records = [a_record(), a_record("d.jpg", relations=[])]
    lines = made(run, graphs=str(write_lines(tmp_path, *records)))[1]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "graphs.parquet")
    assert made(run, graphs=str(tmp_path / "graphs.parquet"))[1] == lines


THING = {"box": [0, 0, 10, 10], "label": "x", "score": 0.5}
ON = {"subject": 0, "predicate": "on", "object": 1, "score": 0.5}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("{not json", "no JSON object"),
        ("[" * 100_000, "no JSON object"),
        ([1], "a JSON object is expected"),
        (a_record(schema="scene-graph/2"), "schema must be 'scene-graph/1'"),
        (a_record("elsewhere.jpg"), "the image 'elsewhere.jpg' is not one of this run"),
        (a_record("b" * 63), "is not one of this run"),
        (a_record(image=7), "image must be a file name"),
        (a_record(tool=7), "tool must be a text, not 7"),
        (a_record(width=400), "width and height are 400 and 100, and those of the image 200 and 100"),
        (a_record(objects=[{**THING, "box": [0, 0, 300, 50]}]), "lies outside the image of 200 x 100"),
        (a_record(objects=[{**THING, "box": [-5, 0, 20, 50]}]), "lies outside the image"),
        (a_record(objects=[{**THING, "box": [200.5, 0, 201, 50]}]), "lies outside the image"),
        (a_record(objects=[{**THING, "box": [50, 0, 20, 50]}]), "is empty: x0 < x1"),
        (a_record(objects=[{**THING, "box": [0, 0, float("nan"), 50]}]), "must be four numbers"),
        (a_record(objects=[{**THING, "box": [0, 0, True, 50]}]), "must be four numbers"),
        (a_record(objects=[{**THING, "box": [0, 0, 10**400, 50]}]), "must be four numbers"),
        (a_record(objects=[{**THING, "score": 1.5}]), "the score of object 0 must be a number from 0 to 1"),
        (a_record(objects=[{**THING, "label": ""}]), "the label of object 0 must be a text"),
        (a_record(objects="none"), "objects must be a list"),
        (a_record(relations=[{**ON, "object": 0}]), "relation 0 relates object 0 to itself"),
        (
            a_record(relations=[{**ON, "object": 2}]),
            "the object of relation 0 must be one of 2 objects",
        ),
        (a_record(relations=[{**ON, "subject": -1}]), "the subject of relation 0 must be one of 2 objects"),
        (a_record(relations=[{**ON, "subject": True}]), "the subject of relation 0"),
        (a_record(relations=[{**ON, "predicate": None}]), "the predicate of relation 0 must be a text"),
        (a_record("d.jpg"), "the image already has a graph, that of"),
    ],
)
def test_a_bad_record_is_one_row_with_file_line_and_reason(
    run: RunFolder, tmp_path: Path, record: Any, reason: str
) -> None:
    path = write_lines(tmp_path, a_record("d.jpg"), record)
    report, rows = made(run, graphs=str(path))
    [problem] = problems(run)
    assert problem["where"] == f"{path}:2"
    assert reason in problem["reason"]
    assert problem["kind"] == "scene"
    assert report.failed == 1
    assert [row["source"] for row in rows] == ["", "", "", "scene-graph"]
    assert sum(Scenes(run, SceneSettings(graphs=str(path))).failures().values()) == 1


def test_a_name_that_is_two_images_must_be_a_key(run: RunFolder, tmp_path: Path) -> None:
    rows = read_table(run.samples, SAMPLES).to_pylist()
    write_table(run.samples, table_of(SAMPLES, [{**row, "image": "same.jpg"} for row in rows]))
    made(run, graphs=str(write_lines(tmp_path, a_record(KEYS[0]), a_record("same.jpg"))))
    assert "is 4 images of this run; name it by its content key" in problems(run)[0]["reason"]


@pytest.mark.parametrize("content", ["", "{}\n", '{"schema": "scene-graph/1", "image": "z.jpg"}\n'])
def test_a_file_without_one_graph_for_the_run_is_refused(
    run: RunFolder, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=r"empty\.jsonl has no scene graph for any of the 4 images"):
        made(run, graphs=str(path))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "json"])
def test_a_file_that_cannot_be_read_is_named(run: RunFolder, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"graphs.{suffix}"
    with pytest.raises(InputError, match="cannot be read"):
        made(run, graphs=str(path))
    if suffix != "jsonl":
        path.write_bytes(b"PAR1 nothing")
        (tmp_path / "custom_data_info.json").write_text("{}")
        with pytest.raises(InputError, match=r"graphs|custom_data_info"):
            made(run, graphs=str(path))


def test_without_detections_the_command_that_makes_them_is_named(run: RunFolder) -> None:
    run.detections.unlink()
    with pytest.raises(StageError, match="hmnet-pipe detect"):
        made(run)


def with_features(*rows: int) -> dict[str, Any]:
    record = a_record()
    return {**record, "objects": [{**o, "feature": r} for o, r in zip(record["objects"], rows, strict=True)]}


@pytest.mark.parametrize("suffix", ["safetensors", "h5"])
def test_features_are_kept_in_the_order_of_the_objects(run: RunFolder, tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    path = tmp_path / f"features.{suffix}"
    if suffix == "h5":
        with h5py.File(path, "w") as file:
            file["object_features"] = values
    else:
        save_file({"object_features": values}, path)
    other = {**with_features(0, 2), "image": "c.jpg"}
    graphs = str(write_lines(tmp_path, other, with_features(4, 1), {**with_features(0, 5), "image": "b.jpg"}))
    made(run, graphs=graphs, features=str(path))
    cache = FeatureCache(run.features("scenes"))
    found, mask = cache.gather([KEYS[0], KEYS[2], KEYS[1]])
    # By score: of each record the second object is the better one.
    assert np.array_equal(found[0, :2, :, 0, 0], values[[1, 4]].astype(np.float16))
    assert np.array_equal(found[1, :2, :, 0, 0], values[[2, 0]].astype(np.float16))
    assert mask.tolist() == [[True] * 2 + [False] * 8] * 2 + [[False] * 10]
    assert (cache.spec.levels, cache.spec.regions) == ((6,), "objects")
    [problem] = problems(run)
    assert (
        "the feature of object 1 must be one of the 5 rows of the features file, not 5" in problem["reason"]
    )
    (run.features("scenes") / "shard-00000.h5").write_bytes(b"damaged")
    assert made(run, graphs=graphs, features=str(path))[0].state == "done"
    made(run, graphs=graphs)
    assert not run.features("scenes").exists()


def test_features_are_of_all_objects_or_none_and_finite(run: RunFolder, tmp_path: Path) -> None:
    values = np.array([[1.0, 2.0], [np.inf, 0.0]], np.float32)
    save_file({"object_features": values}, tmp_path / "f.safetensors")
    graphs = write_lines(
        tmp_path, a_record("b.jpg"), with_features(0, 1), {**with_features(0, 0), "image": "c.jpg"}
    )
    made(run, graphs=str(graphs), features=str(tmp_path / "f.safetensors"))
    assert ["must be one of the 2 rows" in p["reason"] for p in problems(run)] == [True, False]
    assert "is row 1 of the features file, which is not finite" in problems(run)[1]["reason"]


@pytest.mark.parametrize(
    ("tensors", "wrong"),
    [
        ({"features": np.zeros((2, 2), np.float32)}, "holds no array object_features"),
        ({"object_features": np.zeros(2, np.float32)}, "an array of the shape"),
        ({"object_features": np.zeros((2, 2), np.int64)}, "an array of the shape"),
    ],
)
def test_a_wrong_features_file_is_refused(
    run: RunFolder, tmp_path: Path, tensors: dict[str, Any], wrong: str
) -> None:
    save_file(tensors, tmp_path / "f.safetensors")
    with pytest.raises(InputError, match=wrong):
        made(
            run,
            graphs=str(write_lines(tmp_path, with_features(0, 1))),
            features=str(tmp_path / "f.safetensors"),
        )


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="--graphs"):
        SceneSettings(features="f.h5")
    with pytest.raises(InputError, match="leave one of the two out"):
        SceneSettings(graphs="g.jsonl", features="f.h5", missing="geometry")


INFO = {
    "idx_to_files": ["/there/a.jpg", "/there/unknown.jpg", "/there/c.jpg"],
    "ind_to_classes": ["__background__", "man", "horse"],
    "ind_to_predicates": ["__background__", "riding"],
}


def prediction(**changes: Any) -> dict[str, Any]:
    """Return what Scene-Graph-Benchmark writes of an image of 200 x 100, which it resized to 1000 x 500."""
    return {
        "bbox": [[0, 0, 500, 500], [9, 9, 10, 10], [500, 250, 1000, 500]],
        "bbox_labels": [1, 0, 2],
        "bbox_scores": [0.9, 0.8, 0.7],
        "rel_pairs": [[0, 2], [0, 1], [2, 0]],
        "rel_labels": [1, 1, 0],
        "rel_scores": [0.6, 0.5, 0.4],
        **changes,
    }


def test_scene_graph_benchmarks_output_is_read_in_its_resized_frame(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "custom_prediction.json"
    bad = prediction(bbox_labels=[1, -1, 9])
    path.write_text(json.dumps({"0": prediction(), "1": prediction(), "2": bad, "7": prediction()}))
    (tmp_path / "custom_data_info.json").write_text(json.dumps(INFO))
    row = made(run, graphs=str(path))[1][0]
    assert row["labels"] == ["man", "horse"]
    assert row["boxes"][1] == pytest.approx([0.5, 0.5, 1.0, 1.0])
    assert (row["subjects"], row["predicates"], row["objects"]) == ([0], ["riding"], [1])
    wrong = problems(run)
    assert [p["where"] for p in wrong] == [f"{path}, image {number}" for number in (1, 2, 7)]
    assert "'/there/unknown.jpg' is not one of this run" in wrong[0]["reason"]
    assert "no prediction of Scene-Graph-Benchmark" in wrong[1]["reason"]


def test_its_labels_are_a_cause_and_must_be_there(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "custom_prediction.json"
    path.write_text(json.dumps({"0": prediction()}))
    with pytest.raises(InputError, match=r"info\.json \(beside the file of --graphs\) cannot be read"):
        made(run, graphs=str(path))
    (tmp_path / "custom_data_info.json").write_text(json.dumps(INFO))
    made(run, graphs=str(path))
    (tmp_path / "custom_data_info.json").write_text(json.dumps(INFO).replace("horse", "mare"))
    report, rows = made(run, graphs=str(path))
    assert (report.state, rows[0]["labels"]) == ("done", ["man", "mare"])


@pytest.mark.parametrize(
    ("size", "frame"),
    [((200, 100), (1000, 500)), ((640, 480), (800, 600)), ((600, 600), (600, 600)), ((480, 640), (600, 800))],
)
def test_the_frame_is_the_one_of_its_own_notebook(size: tuple[int, int], frame: tuple[int, int]) -> None:
    assert resized_frame(*size) == frame


def test_computed_again_it_is_equal_or_says_what_is_not(run: RunFolder, tmp_path: Path) -> None:
    stage = Scenes(run, SceneSettings())
    run_stage(stage, Tools())
    record = StageRecord.read(run.record("scenes"))

    def again(number: int) -> str:
        scratch = RunFolder(tmp_path / f"scratch{number}")
        scratch.outcomes("scenes").parent.mkdir(parents=True)
        return stage.again(record, 1.0, False, scratch, Tools()).verdict

    assert again(0) == "equal"
    rows = read_table(run.detections, DETECTIONS).to_pylist()
    write_table(run.detections, table_of(DETECTIONS, [{**row, "label": "cow"} for row in rows]))
    assert again(1) == "different"
