"""`hmnet-pipe predict`: a post, a stream, and a file in parts: killed, spread, resumed, and what is wrong."""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hmnet_pipe import Predictor
from hmnet_pipe.manifests.errors import InputError, StageError, WeightsError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, PROBLEMS, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.manifests.trial import Trial
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.predict.command import model_meant, predict_file, streamed
from hmnet_pipe.pipeline.predict.part import Models, Part
from hmnet_pipe.pipeline.predict.predictor import PredictOptions
from hmnet_pipe.pipeline.predict.stage import Predict, Source
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT, ProgressBar, Tools, UnitFailure
from PIL import Image

from ...running import Demos, hmnet, hmnet_words, kill_all

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(
    demos: Demos, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], RunFolder]:
    """Return a function that returns a run of a task with hmnet, trained a little."""
    made: dict[str, RunFolder] = {}

    def make(task: str) -> RunFolder:
        if task not in made:
            folder = tmp_path_factory.mktemp("trained") / task
            made[task] = RunFolder(Path(shutil.copytree(demos.trained(tiny_encoder, task), folder)))
        return made[task]

    return make


def models_of(run: RunFolder, relations: RunFolder | None = None, **options: object) -> Models:
    other = None if relations is None else str(relations.model(Trial("hmnet")))
    chosen = PredictOptions(**options)  # type: ignore[arg-type]
    return Models(str(run.model(Trial("hmnet"))), other, "", "", "", "cpu", "auto", chosen)


def corpus_of(run: RunFolder) -> Path:
    """Return the folder of the images of a run's corpus."""
    rows = read_table(run.images, IMAGES).to_pylist()
    return Path(rows[0]["path"]).parent


def posts_of(run: RunFolder, path: Path, bad: bool = False) -> Path:
    """Write the samples of a run as posts, and some that are none."""
    rows = read_table(run.samples, SAMPLES).to_pylist()
    lines = [
        json.dumps(
            {
                "text": " ".join(row["tokens"]),
                "image": row["image"],
                "id": row["id"],
                "line": 3,
                "error": "mine",
            }
        )
        for row in rows
    ]
    if bad:
        lines[5:5] = ["no json", '{"text": " "}', '{"image": "a.jpg", "id": "d"}', '{"text": "half \\ud83d"}']
        lines += ['{"text": "In Oslo", "image": "nowhere.jpg"}', '{"text": "In Oslo", "image": "broken.jpg"}']
    path.write_text("\n".join(lines) + "\n")
    return path


def lines_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "predictions.jsonl").open()]


def test_a_killed_and_spread_prediction_gives_the_bytes_of_an_undisturbed_one(
    trained: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run = trained("ner")
    posts = posts_of(run, tmp_path / "posts.jsonl")
    images = corpus_of(run)
    whole = tmp_path / "whole"
    report = predict_file(models_of(run), Source(posts, images), whole, 8, SILENT)
    assert (report.done, report.failed) == (64, 0)
    wanted = (whole / "predictions.jsonl").read_bytes()
    assert not list(whole.glob("stages/*.parts"))

    draw = random.Random(1)
    words = hmnet_words(
        "predict", run.path, posts, "--images", images, "--output", tmp_path / "killed", "--chunk", 8
    )

    kills = 0
    for workers in (1, 2):
        process = subprocess.Popen(
            [*words, "--workers", str(workers)],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        parts = tmp_path / "killed" / "stages" / "predict.parts"
        wanted_parts = draw.randint(1, 3) + kills
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(parts.glob("*/*.done.jsonl"))) >= wanted_parts:
                break
            time.sleep(0.02)
        kills += process.poll() is None
        kill_all(process)
    assert kills
    ended = hmnet(*words[3:], "--workers", 2)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "killed" / "predictions.jsonl").read_bytes() == wanted
    again = hmnet(*words[3:])
    assert "up to date, nothing to do" in again.stdout


def test_a_file_is_what_its_posts_are_one_by_one_and_each_fault_is_one_row(
    trained: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run = trained("ner")
    images = tmp_path / "images"
    shutil.copytree(corpus_of(run), images)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    posts = posts_of(run, tmp_path / "posts.jsonl", bad=True)
    report = predict_file(models_of(run), Source(posts, images), tmp_path / "out", 20, SILENT)
    found = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    assert len(found) == 70
    assert report.failed == 4
    problems = read_table(RunFolder(tmp_path / "out").problems, PROBLEMS).to_pylist()
    assert [(row["kind"], row["where"].rsplit(":", 1)[1]) for row in problems if row["kind"] == "post"] == [
        ("post", "6"),
        ("post", "7"),
        ("post", "8"),
        ("post", "9"),
    ]
    assert {row["where"].rsplit(":", 1)[1] for row in problems if row["kind"] == "image"} >= {"69", "70"}
    assert [one.get("id") for one in found[5:9]] == [None, None, "d", None]
    assert found[68]["image_status"] == "missing"
    assert found[69]["image_status"] == "unreadable"
    find = Predictor.from_pretrained(run.model(Trial("hmnet")))
    for number in (0, 1, 12, 40):
        line = found[number]
        path = images / line["image"] if line["image_status"] == "used" else None
        alone = find(line["text"], image=path)
        assert alone.text == line["text"]
        assert [one.to_json() for one in alone.entities] == [
            pytest.approx(one, abs=1e-5) for one in line["entities"]
        ]
        assert [seen.to_json() for seen in alone.objects] == line["objects"]
        assert line["line"] == 3
    posts.write_text('{"id": "d"}\n')
    (printed,) = streamed(find, Source(posts, None), 4)
    assert printed.id == "d"
    assert printed.error.startswith('posts.jsonl line 1: it has neither "text" nor "tokens"')


def test_other_formats_are_made_of_the_predictions(
    trained: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run = trained("ner")
    posts = posts_of(run, tmp_path / "posts.jsonl")
    words = ["predict", str(run.path), str(posts), "--system", "hmnet", "--images", str(corpus_of(run))]
    printed = CliRunner().invoke(main, [*words, "--format", "csv", "--recall", "0.05"])
    assert printed.exit_code == 0, printed.output
    header, *rows = printed.stdout.splitlines()
    assert "entity_group" in header
    assert rows
    report = predict_file(
        models_of(run, recall=0.05), Source(posts, corpus_of(run)), tmp_path / "out", 20, SILENT, "conll"
    )
    assert report.output == tmp_path / "out" / "predictions.conll"
    assert "B-" in report.output.read_text()


def test_mentions_and_their_relations_together(trained: Callable[[str], RunFolder], tmp_path: Path) -> None:
    ner, re = trained("ner"), trained("re")
    posts = posts_of(ner, tmp_path / "posts.jsonl")
    models = models_of(ner, re, recall=0.05, types=False)
    predict_file(models, Source(posts, corpus_of(ner)), tmp_path / "out", 20, SILENT)
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    pairs = [(line, one) for line in lines for one in line["relations"]]
    for line, one in pairs:
        assert one["head"] != one["tail"]
        assert max(one["head"], one["tail"]) < len(line["entities"])
    assert pairs
    images = corpus_of(ner)
    given = [json.loads(line) for line in posts.open()]
    placed = [{**post, "image": images / post["image"]} if post.get("image") else post for post in given]
    streamed = [one.to_json() for one in models.open().stream(placed)]
    for one, line in zip(streamed, lines, strict=True):
        relations = [(each["relation"], each["head"], each["tail"]) for each in one["relations"]]
        assert relations == [(each["relation"], each["head"], each["tail"]) for each in line["relations"]]


def test_a_post_over_which_its_worker_dies_costs_its_row(
    trained: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run = trained("ner")
    posts = tmp_path / "posts.jsonl"
    texts = ["In Oslo", "to die of", "Zoe", "Ada in Rome", "Bob"]
    posts.write_text("".join(json.dumps({"text": text, "id": text}) + "\n" for text in texts))
    source = Source(posts, None)
    predict_file(models_of(run), source, tmp_path / "whole", 3, SILENT)

    def worked(function: Callable[[Part], object], units: Sequence[Part]) -> Iterator[tuple[Part, object]]:
        """Do what a cluster does whose workers die of that post."""
        for unit in units:
            mortal = isinstance(unit, Part) and texts.index("to die of") in range(*unit.lines)
            if mortal and unit.posts.endswith("000000.posts.jsonl"):
                yield from worked(function, unit.halves()) if len(unit) > 1 else [(unit, UnitFailure("dead"))]
            else:
                yield unit, function(unit)

    report = predict_file(models_of(run), source, tmp_path / "out", 3, Tools(map=worked))
    assert (report.done, report.failed) == (5, 1)
    whole, found = (
        [json.loads(line) for line in (tmp_path / name / "predictions.jsonl").open()]
        for name in ("whole", "out")
    )
    assert found[1] == {**whole[1], "entities": [], "error": "it was given up: dead"}
    for one, other in zip(found[:1] + found[2:], whole[:1] + whole[2:], strict=True):
        assert one["text"] == other["text"]
        assert [entity["score"] for entity in one["entities"]] == pytest.approx(
            [entity["score"] for entity in other["entities"]], abs=1e-5
        )


def test_images_that_vanish_or_change_while_it_runs_cost_a_row_each(
    trained: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run = trained("ner")
    images = tmp_path / "images"
    shutil.copytree(corpus_of(run), images)
    first, second, third, last = names = sorted(path.name for path in images.iterdir())[:4]
    posts = tmp_path / "posts.jsonl"
    posts.write_text("".join(json.dumps({"text": "In Oslo", "image": name}) + "\n" for name in names))
    stage = Predict(tmp_path / "out", models_of(run), Source(posts, images))
    stage.causes()  # looks the images up
    (images / first).unlink()
    shutil.copy(images / last, images / second)

    def bar(total: int, what: str, unit: str) -> ProgressBar:
        if what == "detect":
            (images / third).unlink()
        return SILENT.bar(total, what, unit)

    run_stage(stage, Tools(bar=bar))
    found = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    assert [one["image_status"] for one in found] == ["missing", "missing", "missing", "used"]
    assert [one.get("image_reason") for one in found] == [
        "not there",
        "changed since it was looked up",
        "not there",
        None,
    ]


def test_a_prediction_is_repeated_and_compared(trained: Callable[[str], RunFolder], tmp_path: Path) -> None:
    run = trained("ner")
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"text": "In Oslo"}\n')
    stage = Predict(tmp_path / "out", models_of(run), Source(posts, None))
    run_stage(stage, SILENT)
    record = StageRecord.read(stage.run.record("predict"))
    assert record is not None
    assert stage.again(record, 1.0, False, RunFolder(tmp_path / "a"), SILENT).verdict == "equal"
    other = replace(record, outputs={"predictions.jsonl": "0" * 64})
    assert stage.again(other, 1.0, False, RunFolder(tmp_path / "b"), SILENT).verdict == "different"


def test_what_cannot_be_used_is_one_sentence(trained: Callable[[str], RunFolder], tmp_path: Path) -> None:
    run, re = trained("ner"), trained("re")
    posts = posts_of(run, tmp_path / "posts.jsonl")
    source = Source(posts, corpus_of(run))
    with pytest.raises(InputError, match="is a run; give --output"):
        predict_file(models_of(run), source, run.path, 20, SILENT)
    out = tmp_path / "out"
    few = tmp_path / "few.jsonl"
    few.write_text('{"text": "In Oslo"}\n')
    predict_file(models_of(run), Source(few, None), out, 20, SILENT)
    with pytest.raises(StageError, match="holds the predictions of another model"):
        predict_file(models_of(re), Source(few, None), out, 20, SILENT)
    with pytest.raises(InputError, match="give the model of entities first"):
        models_of(re, run).open()
    with pytest.raises(InputError, match="has no model of umt with seed 1; it has --system hmnet --seed 1"):
        model_meant(str(run.path), "umt", 1)
    tuned = RunFolder(tmp_path / "tuned")
    tuned.path.mkdir()
    tuned.config.touch()
    for start in ("", "-from-train"):  # two starts, which these commands do not tell apart
        (tuned.models / f"hmnet/finetuned-seed-1{start}").mkdir(parents=True)
    with pytest.raises(InputError, match=r"; it has --system hmnet --seed 1 --finetuned$"):
        model_meant(str(tuned.path), "umt", 1)
    other = tmp_path / "other"
    shutil.copytree(run.model(Trial("hmnet")), other)
    config = json.loads((other / "config.json").read_text())
    config["made_by"]["detect"]["weights"]["detector"] = "0" * 64
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="--detector-weights"):
        Predictor.from_pretrained(other)("In Oslo", image=next(corpus_of(run).iterdir()))
    spoilt: list[object] = [[3], {"detect": "x"}, {"prepare": {"weights": {}}}]
    for damaged in spoilt:
        (other / "config.json").write_text(json.dumps({**config, "made_by": damaged}))
        with pytest.raises(WeightsError, match="damaged"):
            Predictor.from_pretrained(other)
    del config["made_by"]
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="does not say how"):
        Predictor.from_pretrained(other)


def test_a_text_that_is_longer_than_the_model_reads_is_read_in_windows(
    trained: Callable[[str], RunFolder],
) -> None:
    result = Predictor.from_pretrained(trained("ner").model(Trial("hmnet")))("Ada in Oslo " * 200)
    assert (result.error, result.truncated) == ("", False)
    assert result.entities[-1].start > 1200


def test_one_post_is_printed_for_people_or_as_json(trained: Callable[[str], RunFolder]) -> None:
    run = trained("ner")
    image = next(corpus_of(run).iterdir())

    def printed(*words: object) -> Result:
        return CliRunner().invoke(main, ["predict", str(run.path), *map(str, words)])

    shown = printed("--text", "Zoe in Oslo\x1b[31m", "--image", image, "--recall", 0.01)
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.stdout
    assert "image: " in shown.stdout
    asked = printed("--text", "Zoe in Oslo", "--recall", 0.01, "--marginals", "--alternatives", 2)
    assert asked.stdout.count("\n  or  ") >= 2
    assert "\n  Oslo: " in asked.stdout
    as_json = printed("--text", "Zoe in Oslo", "--image", image, "--json")
    assert json.loads(as_json.stdout)["image_status"] == "used"
    nothing = printed()
    assert (nothing.exit_code, "either POSTS" in nothing.stderr) == (2, True)


def test_an_image_that_is_bytes_in_a_table_costs_its_row(
    trained: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run = trained("ner")
    image = min(corpus_of(run).glob("*.jpg")).read_bytes()
    posts = tmp_path / "posts.parquet"
    pq.write_table(pa.table({"text": ["In Oslo", "In Paris"], "image": [image, None]}), posts)
    report = predict_file(models_of(run), Source(posts, None), tmp_path / "out", 8, SILENT)
    assert (report.done, report.failed) == (2, 1)
    (problem,) = read_table(tmp_path / "out" / "problems.parquet", PROBLEMS).to_pylist()
    assert "the bytes of a file; leave out --output" in problem["reason"]


def test_what_python_gives_wrongly_is_one_sentence_and_a_lone_bad_image_one_row(
    trained: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run = trained("ner")
    find = models_of(run).open()
    Image.new("RGB", (1, 1400)).save(tmp_path / "thin.png")
    thin = find("In Oslo", image=tmp_path / "thin.png")
    assert thin.image_status == "unreadable"
    assert "the detector cannot take 1 x 1400 pixels" in str(thin.image.reason)
    for wrong in (7, None, b"In Oslo"):
        with pytest.raises(InputError, match="a post is a text"):
            find(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="another number of images"):
        find(["In Oslo", "In Rome"], image=3)  # type: ignore[call-overload]
    assert "no list of words" in find({"tokens": 7}).error
    with pytest.raises(WeightsError, match=r"gone\.pt is not there.*--detector-weights"):
        replace(models_of(run), detector_weights="gone.pt").open()(
            "In Oslo", image=next(corpus_of(run).iterdir())
        )


def test_a_stream_keeps_to_the_folder_of_images_as_a_file_in_parts_does(
    trained: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    run = trained("ner")
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(next(corpus_of(run).iterdir()), folder / "a.jpg")
    shutil.copy(folder / "a.jpg", tmp_path / "secret.jpg")
    names = ["a.jpg", "a.png", "../secret.jpg", str(tmp_path / "secret.jpg"), str(folder / "a.jpg"), "b.jpg"]
    posts = tmp_path / "posts.jsonl"
    posts.write_text("".join(json.dumps({"text": "In Oslo", "image": name}) + "\n" for name in names))
    source = Source(posts, folder)
    found = [one.to_json() for one in streamed(models_of(run).open(), source, 4)]
    assert [one["image_status"] for one in found] == ["used", "used", "missing", "missing", "used", "missing"]
    predict_file(models_of(run), source, tmp_path / "out", 20, SILENT)
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    assert [one.get("image_reason") for one in found] == [line.get("image_reason") for line in lines]
    assert [one["image"] for one in found] == [line["image"] for line in lines] == names
    with pytest.raises(InputError, match="is not a folder; give the folder"):
        next(streamed(models_of(run).open(), Source(posts, tmp_path / "away"), 4))
    with pytest.raises(StageError, match=r"posts\.jsonl is not a folder"):
        predict_file(models_of(run), source, posts, 20, SILENT)
