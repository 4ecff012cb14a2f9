"""Prepare writes its tables whatever the images are, and notices exactly what has changed."""

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, PROBLEMS, SAMPLES
from hmnet_pipe.manifests.tables import read_table, table_of, write_table
from hmnet_pipe.pipeline.checks.verify import mend_run, verify_run
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.new import prepare_run
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.stages.base.tools import Tools
from hmnet_pipe.stages.prepare.identity import identify
from hmnet_pipe.stages.prepare.settings import PrepareSettings
from hmnet_pipe.stages.prepare.stage import Prepare
from hmnet_pipe.stages.text.words import WORD_RULES, rule_of_record
from hmnet_pipe.stages.vision import folder as image_folder
from hmnet_pipe.stages.vision.images import image_from_bytes
from PIL import Image

Rows = list[dict[str, Any]]


def picture(color: str, format: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, color).save(file, format)
    return file.getvalue()


def key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tweet(image: str, words: str = "Ada is here") -> str:
    return f"IMGID:{image}\n" + "".join(f"{word}\tO\n" for word in words.split()) + "\n"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    (tmp_path / "images").mkdir()
    return tmp_path


def stage(
    workplace: Path, task: str = "ner", run: str = "run", with_images: bool = True, format: str = "auto"
) -> Prepare:
    images = workplace / "images" if with_images else None
    return Prepare(RunFolder(workplace / run), PrepareSettings(workplace / "text", task, images, format))


def settled(workplace: Path) -> Prepare:
    """Return the stage once the files are old enough for their times to show the next write."""
    settings = PrepareSettings(workplace / "text", "ner", workplace / "images")
    time.sleep(0.05)
    return Prepare(RunFolder(workplace / "run"), settings, settling_ns=40_000_000)


def record(prepare: Prepare) -> StageRecord:
    """Write what the pipeline writes when a stage has finished."""
    return StageRecord(
        "prepare", prepare.schema_version, prepare.parameters(), prepare.inputs(), {}, prepare.outputs()
    )


def tables(prepare: Prepare) -> tuple[Rows, Rows, Rows]:
    run = prepare.run
    schemas = ((run.samples, SAMPLES), (run.images, IMAGES), (run.problems, PROBLEMS))
    samples, images, problems = (read_table(path, schema).to_pylist() for path, schema in schemas)
    return samples, images, problems


def test_samples_images_and_problems_are_written(workplace: Path) -> None:
    red = picture("red")
    (workplace / "images" / "1.jpg").write_bytes(red)
    (workplace / "text" / "train.txt").write_text(tweet("1") + tweet("2") + "IMGID:3\nAda\tI-PER\n")
    (workplace / "text" / "valid.txt").write_text(tweet("1"))
    prepare = stage(workplace)
    said: list[str] = []
    counts = prepare.compute(prepare.causes(), Tools(say=said.append))
    samples, images, problems = tables(prepare)
    assert [(sample["split"], sample["id"], sample["image_key"]) for sample in samples] == [
        ("train", "1", key(red)),
        ("train", "2", None),
        ("train", "3", None),
        ("valid", "1", key(red)),
    ]
    assert images == [
        {
            "key": key(red),
            "path": str(workplace / "images" / "1.jpg"),
            "width": 8,
            "height": 6,
            "status": "ok",
            "reason": None,
        }
    ]
    assert [(problem["kind"], problem["sample"], problem["where"]) for problem in problems] == [
        ("image", "2", "2.jpg"),
        ("image", "3", "3.jpg"),
        ("tag", "3", "train.txt:12"),
    ]
    assert problems[0]["reason"] == "not in the image folder"
    assert (counts.unit, counts.done, counts.failed) == ("samples", 4, 0)
    assert counts.details == {
        "samples per split": {"train": 3, "valid": 1},
        "mentions per split": {"train": {"PER": 1}, "valid": {}},
        "images": 1,
        "samples whose image is missing": 2,
        "samples whose image is unreadable": 0,
        "repaired tags": 1,
        "rows of these": str(prepare.run.problems),
        "data": {
            split: f"unknown version [{identity.digest[:12]}]"
            for split, identity in identify(samples).items()
        },
    }
    assert said == [
        f"note: {workplace / 'text'} holds no file for the split test; the run goes on without it"
    ]


def test_other_schemes_are_counted_and_the_column_and_own_labels_are_causes(workplace: Path) -> None:
    (workplace / "text" / "train.txt").write_text("Ada\tS-PER\tS-OTHER\n\nis\tO\tO\n")
    prepare = stage(workplace, with_images=False)
    prepare.settings = replace(prepare.settings, column=2)
    details = prepare.compute(causes := prepare.causes(), Tools()).details
    assert details["samples with other tags than BIO"] == {"tags of BIOES or BILOU, read as BIO": 1}
    prepare.settings = replace(prepare.settings, column=3, labels="written")
    assert prepare.causes().changes(causes) == ["column: 3 -> 2", "labels: written -> absent"]


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("11", "11.png"),
        ("11", "11.JPG"),
        ("11.png", "11.webp"),
        ("11.jpg", "11.jpg"),  # IMGID with its suffix, to which another is added
        ("caf\u00e9", "cafe\u0301.jpg"),
        ("cafe\u0301", "caf\u00e9.jpeg"),
        ("a.b", "a.b.png"),
    ],
)
@pytest.mark.parametrize("folder", ["", "train"])
def test_an_image_under_another_name_is_found_and_counted(
    workplace: Path, wanted: str, there: str, folder: str
) -> None:
    (workplace / "images" / folder).mkdir(exist_ok=True)
    (workplace / "images" / folder / there).write_bytes(picture("red"))
    (workplace / "images" / "other.png").write_bytes(picture("blue"))
    (workplace / "text" / "train.txt").write_text(tweet(wanted), encoding="utf-8")
    prepare = stage(workplace)
    details = prepare.compute(prepare.causes(), Tools()).details
    samples, images, problems = tables(prepare)
    assert (samples[0]["image_key"], problems) == (key(picture("red")), [])
    assert [Path(image["path"]).name for image in images] == [there]
    assert details["images under another name"] == 1


def test_an_image_of_the_very_name_is_preferred_and_not_counted(workplace: Path) -> None:
    (workplace / "images" / "test").mkdir()
    (workplace / "images" / "1.png").write_bytes(picture("blue"))
    (workplace / "images" / "test" / "1.jpg").write_bytes(picture("red"))
    (workplace / "text" / "train.txt").write_text(tweet("1"))
    prepare = stage(workplace)
    assert "images under another name" not in prepare.compute(prepare.causes(), Tools()).details
    assert tables(prepare)[0][0]["image_key"] == key(picture("red"))


def test_where_several_files_fit_or_one_nearly_does_the_message_names_them(workplace: Path) -> None:
    for name in ("1.png", "1.webp", "Ada.png"):
        (workplace / "images" / name).write_bytes(picture("red"))
    (workplace / "text" / "train.txt").write_text(tweet("1") + tweet("ada") + tweet("2"))
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools())
    assert {problem["sample"]: problem["reason"] for problem in tables(prepare)[2]} == {
        "1": "not in the image folder, where 1.png and 1.webp are; name one of them",
        "ada": "not in the image folder, where Ada.png is",
        "2": "not in the image folder",
    }


def test_what_is_no_file_is_called_what_it_is_and_does_no_harm_to_others(workplace: Path) -> None:
    images = workplace / "images"
    (images / "1.png").write_bytes(picture("red"))
    (images / "folder.jpg").mkdir()
    os.mkfifo(images / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(images / "socket.jpg"))  # the name of a socket is short
    (images / "loop.jpg").symlink_to(images / "loop.jpg")
    (images / "gone.jpg").symlink_to(images / "nowhere")
    names = ("1", "folder", "pipe", "socket", "loop", "gone", "absent")
    (workplace / "text" / "train.txt").write_text("".join(map(tweet, names)))
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools())
    assert {problem["sample"]: problem["reason"] for problem in tables(prepare)[2]} == {
        "folder": "a folder, not an image file",
        "pipe": "a pipe, not an image file",
        "socket": "a socket, not an image file",
        "loop": "a link to what is not there, not an image file",
        "gone": "a link to what is not there, not an image file",
        "absent": "not in the image folder",
    }


def test_an_absolute_path_inside_the_image_folder_is_found(workplace: Path) -> None:
    image = workplace / "images" / "x.jpg"
    for path in (image, workplace / "y.jpg"):
        path.write_bytes(picture("red"))
    names = [image, workplace / "y.jpg", f"{workplace}/images/../y.jpg"]
    rows = [
        {"id": str(at), "tokens": ["a"], "tags": ["O"], "image": str(name)} for at, name in enumerate(names)
    ]
    (workplace / "text" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools())
    samples, _, problems = tables(prepare)
    assert [sample["image_key"] for sample in samples] == [key(picture("red")), None, None]
    assert {problem["reason"] for problem in problems} == {"the name leads out of the image folder"}


def test_moved_spans_are_counted_and_the_rule_for_words_is_a_cause(workplace: Path) -> None:
    spans = [{"start": 1, "end": 2, "type": "T"}]
    (workplace / "text" / "train.jsonl").write_text(json.dumps({"text": "abc de", "spans": spans}))
    prepare = stage(workplace, with_images=False)
    causes = prepare.causes()
    assert prepare.compute(causes, Tools()).details["spans moved to whole words"] == 1
    assert [problem["kind"] for problem in tables(prepare)[2]] == ["span"]
    prepare.settings = replace(prepare.settings, words="characters")
    assert prepare.causes().changes(causes) == ["words: characters -> auto"]
    assert "spans moved to whole words" not in prepare.compute(prepare.causes(), Tools()).details
    prepare.settings = replace(prepare.settings, words="auto", strict_spans=True)
    with pytest.raises(InputError, match="is not whole words"):
        prepare.causes()


def test_the_rule_that_prepare_is_given_stays_with_the_run(workplace: Path) -> None:
    (workplace / "text" / "train.jsonl").write_text(json.dumps({"text": "see t.co/x @a", "spans": []}))
    run = RunFolder(workplace / "run")
    new = ["prepare", str(run.path), "--task", "ner", "--text", str(workplace / "text"), "--words", "tweet"]
    for words in (new, ["prepare", str(run.path)]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        record = StageRecord.known(run.record("prepare"))
        assert record is not None
        assert rule_of_record(record.parameters) == "tweet"
        assert RunConfig.read(run.config).of(PrepareSettings).words == "tweet"
        assert read_table(run.samples, SAMPLES)["tokens"].to_pylist() == [["see", "t.co/x", "@a"]]


# Right to left, marks, scripts without spaces, emoji, and what only some call white space.
TEXTS = (
    "  plain  ",
    "\u05e9\u05dc\u05d5\u05dd \u200f\u05e2\u05d5\u05dc\u05dd! \u0645\u0631\u062d\u0628\u0627 x",
    "e\u0301t\u00e9 \u0939\u093f\u0928\u094d\u0926\u0940\u0964\u6211\u7231",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f44d\U0001f3fd",
    "\U0001f1eb\U0001f1f7 1\ufe0f\u20e3\u2028 @a\u2026 \x00b",
)


@pytest.mark.parametrize("rule", WORD_RULES)
def test_offsets_lead_from_each_word_to_its_place_in_the_text(workplace: Path, rule: str) -> None:
    records = [{"id": str(number), "text": text, "spans": []} for number, text in enumerate(TEXTS)]
    (workplace / "text" / "train.jsonl").write_text("\n".join(map(json.dumps, records)))
    prepare = stage(workplace, with_images=False)
    prepare.settings = replace(prepare.settings, words=rule)
    prepare.compute(prepare.causes(), Tools())
    samples = tables(prepare)[0]
    assert [sample["text"] for sample in samples] == list(TEXTS)
    for sample in samples:
        assert [sample["text"][start:end] for start, end in sample["offsets"]] == sample["tokens"]
    assert prepare.damage() == []


def test_texts_are_in_no_digest_and_damaged_ones_are_found_and_mended(workplace: Path) -> None:
    config = preset("custom", task="ner", text=workplace / "text", images=None, format="auto")
    (workplace / "text" / "train.jsonl").write_text(json.dumps({"text": "a b", "spans": []}))
    run = RunFolder(workplace / "run")
    prepare_run(run, config, Tools())
    before = StageRecord.known(run.record("prepare"))
    sound = read_table(run.samples, SAMPLES)
    offsets = pa.array([[[0, 1], [1, 2]]], SAMPLES.field("offsets").type)
    write_table(run.samples, sound.set_column(sound.num_columns - 1, SAMPLES.field("offsets"), offsets))
    assert [(problem.what, problem.reason) for problem in verify_run(run)] == [
        (str(run.samples), "1 sample whose words are not those of their texts")
    ]
    mend_run(run, verify_run(run), Tools())
    assert verify_run(run) == []
    assert read_table(run.samples, SAMPLES).equals(sound)
    (workplace / "text" / "train.jsonl").write_text(
        json.dumps({"id": sound["id"][0].as_py(), "text": "a  b", "spans": []})
    )
    prepare_run(run, config, Tools())
    after = StageRecord.known(run.record("prepare"))
    assert before is not None
    assert after is not None
    assert before.outputs == after.outputs
    assert before.inputs != after.inputs
    assert read_table(run.samples, SAMPLES)["offsets"].to_pylist() == [[[0, 1], [3, 4]]]


def test_a_rule_under_the_name_that_it_had_before_is_no_change(workplace: Path) -> None:
    """A run of before has words = "auto" or "spaces", and says so in its record."""
    prepare = stage(workplace, with_images=False)
    (workplace / "text" / "train.jsonl").write_text(json.dumps({"text": "abc de", "spans": []}))
    for words, recorded in (("auto", "auto"), ("simple", "auto"), ("spaces", "spaces"), ("tweet", "tweet")):
        prepare.settings = replace(prepare.settings, words=words)
        assert prepare.parameters() == {"task": "ner", "format": "jsonl", "words": recorded}
    (workplace / "text" / "train.jsonl").unlink()
    (workplace / "text" / "train.txt").write_text(tweet("1"))
    for words in ("auto", "tweet"):  # what such texts have anyhow
        prepare.settings = replace(prepare.settings, words=words)
        assert prepare.parameters() == {"task": "ner", "format": "twitter"}
    prepare.settings = replace(prepare.settings, words="simple")
    assert prepare.parameters() == {"task": "ner", "format": "twitter", "words": "simple"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (picture("red")[:-30], "truncated"),
        (b"<html>404</html>", "not an image"),
        (
            b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;",
            "too large: 65535 x 65535 pixels",
        ),
    ],
)
def test_an_unusable_image_costs_a_row_and_not_the_run(workplace: Path, content: bytes, reason: str) -> None:
    (workplace / "images" / "1.jpg").write_bytes(content)
    (workplace / "images" / "2.jpg").write_bytes(picture("red"))
    (workplace / "text" / "train.txt").write_text(tweet("1") + tweet("2") + tweet("1", "another"))
    prepare = stage(workplace)
    counts = prepare.compute(prepare.causes(), Tools())
    samples, images, problems = tables(prepare)
    assert [sample["image_key"] is None for sample in samples] == [
        sample["image"] == "1.jpg" for sample in samples
    ]
    unreadable = next(image for image in images if image["status"] == "unreadable")
    assert unreadable["key"] == key(content)
    assert (unreadable["width"], unreadable["height"]) == (0, 0)
    assert unreadable["reason"].startswith(reason)
    assert [(problem["where"], problem["reason"]) for problem in problems] == [
        ("1.jpg", unreadable["reason"])
    ] * 2
    assert (counts.done, counts.details["samples whose image is unreadable"]) == (3, 2)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "a/../../secret.jpg",
        "/etc/hostname",
        "..\\secret.jpg",
        "C:\\x.jpg",
        "a\0b.jpg",
        "..",
        "x" * 5000,
        ".",
    ],
)
def test_a_name_that_leads_out_of_the_image_folder_is_never_opened(workplace: Path, name: str) -> None:
    (workplace / "secret.jpg").write_bytes(picture("red"))
    line = {"id": "a", "tokens": ["x"], "tags": ["O"], "image": name}
    (workplace / "text" / "train.jsonl").write_text(json.dumps(line))
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools())
    samples, images, problems = tables(prepare)
    assert samples[0]["image_key"] is None
    assert images == []
    assert len(problems) == 1
    if "secret" in name or "etc" in name or "\0" in name:
        assert problems[0]["reason"] == "the name leads out of the image folder"


def test_an_image_id_that_climbs_is_refused_too(workplace: Path) -> None:
    (workplace / "secret.jpg").write_bytes(picture("red"))
    (workplace / "text" / "train.txt").write_text(tweet("../secret"))
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools())
    samples, _, problems = tables(prepare)
    assert samples[0]["image_key"] is None
    assert problems[0]["reason"] == "the name leads out of the image folder"


def test_a_link_to_an_image_is_an_image_and_a_broken_one_is_missing(workplace: Path) -> None:
    (workplace / "elsewhere.png").write_bytes(picture("red"))
    (workplace / "images" / "1.jpg").symlink_to(workplace / "elsewhere.png")
    (workplace / "images" / "2.jpg").symlink_to(workplace / "nowhere.png")
    (workplace / "images" / "3.jpg").mkdir()
    os.mkfifo(workplace / "images" / "4.jpg")
    (workplace / "text" / "train.txt").write_text(tweet("1") + tweet("2") + tweet("3") + tweet("4"))
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools())
    samples, _, problems = tables(prepare)
    assert [sample["image_key"] for sample in samples] == [key(picture("red")), None, None, None]
    assert {problem["reason"] for problem in problems} == {
        "a link to what is not there, not an image file",
        "a folder, not an image file",
        "a pipe, not an image file",
    }


def test_folders_of_images_per_split_are_searched_the_samples_own_first(workplace: Path) -> None:
    pair = {"token": ["a", "b"], "h": {"pos": [0, 1]}, "t": {"pos": [1, 2]}, "relation": "r"}
    colors = {
        "train/1.jpg": "red",
        "val/1.jpg": "blue",
        "2.jpg": "green",
        "val/2.jpg": "black",
        "test/3.jpg": "white",
    }
    for name, color in colors.items():
        (workplace / "images" / name).parent.mkdir(exist_ok=True)
        (workplace / "images" / name).write_bytes(picture(color))
    text = "".join(f"{ {**pair, 'img_id': name} }\n" for name in ("1.jpg", "2.jpg", "3.jpg"))
    (workplace / "text" / "mnre_train.txt").write_text(text)
    (workplace / "text" / "mnre_val .txt").write_text(text)
    prepare = stage(workplace, "re")
    assert prepare.compute(prepare.causes(), Tools()).details["relations per split"] == {
        "train": {"r": 3},
        "valid": {"r": 3},
    }
    samples, _, _ = tables(prepare)
    found = {(sample["split"], sample["image"]): sample["image_key"] for sample in samples}
    expected = {
        ("train", "1.jpg"): "red",
        ("valid", "1.jpg"): "blue",
        ("train", "2.jpg"): "green",
        ("valid", "2.jpg"): "green",
        ("train", "3.jpg"): "white",
        ("valid", "3.jpg"): "white",
    }
    assert found == {place: key(picture(color)) for place, color in expected.items()}


def test_files_of_equal_content_share_a_key_and_are_decoded_once(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.jpg", "2.jpg"):
        (workplace / "images" / name).write_bytes(picture("red"))
    (workplace / "text" / "train.txt").write_text(tweet("1") + tweet("2"))
    prepare = stage(workplace)
    decoded: list[bytes] = []

    def counted(data: bytes) -> Image.Image:
        decoded.append(data)
        return image_from_bytes(data)

    monkeypatch.setattr(image_folder, "image_from_bytes", counted)
    causes = prepare.causes()
    prepare.compute(causes, Tools())
    samples, images, _ = tables(prepare)
    assert {sample["image_key"] for sample in samples} == {key(picture("red"))}
    assert [image["path"] for image in images] == [str(workplace / "images" / "1.jpg")]
    replace(causes, outputs=prepare.outputs()).write(prepare.run.record("prepare"))
    (workplace / "images" / "3.jpg").write_bytes(picture("blue"))
    (workplace / "text" / "test.txt").write_text(tweet("3"))
    prepare.compute(prepare.causes(), Tools())
    assert decoded == [picture("red"), picture("blue")]
    assert len(tables(prepare)[1]) == 2


def test_a_run_on_text_alone_has_no_image_and_no_problem(workplace: Path) -> None:
    (workplace / "text" / "train.txt").write_text(tweet("1"))
    prepare = stage(workplace, with_images=False)
    assert prepare.compute(prepare.causes(), Tools()).details["samples whose image is unreadable"] == 0
    samples, images, problems = tables(prepare)
    assert (samples[0]["image"], samples[0]["image_key"], images, problems) == ("1.jpg", None, [], [])
    assert "images" not in prepare.inputs()


def test_a_sample_that_names_no_image_is_no_failure(workplace: Path) -> None:
    (workplace / "text" / "train.jsonl").write_text(
        json.dumps({"tokens": ["x"], "tags": ["O"], "image": None})
    )
    prepare = stage(workplace)
    assert prepare.compute(prepare.causes(), Tools()).details["samples whose image is unreadable"] == 0
    assert tables(prepare)[2] == []


@pytest.mark.parametrize("make", [Path.touch, lambda path: None], ids=["a file", "nothing"])
def test_a_wrong_image_folder_is_an_error_that_says_so(workplace: Path, make: Callable[[Path], None]) -> None:
    (workplace / "text" / "train.txt").write_text(tweet("1"))
    (workplace / "images").rmdir()
    make(workplace / "images")
    prepare = stage(workplace)
    for call in (prepare.inputs, lambda: prepare.compute(prepare.causes(), Tools())):
        with pytest.raises(InputError, match="images is not a folder; give the folder that holds the images"):
            call()


def test_a_folder_without_any_of_the_images_is_remarked_on(workplace: Path) -> None:
    (workplace / "text" / "train.txt").write_text(tweet("1") + tweet("2"))
    said: list[str] = []
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools(say=said.append))
    assert any("warning: none of the 2 images" in line and "is it the right folder?" in line for line in said)


def test_looking_at_a_run_that_does_not_exist_does_not_create_it(workplace: Path) -> None:
    (workplace / "text" / "train.txt").write_text(tweet("1"))
    (workplace / "images" / "1.jpg").write_bytes(picture("red"))
    prepare = settled(workplace)  # otherwise no digest would be remembered anyway
    assert prepare.inputs()
    assert prepare.outputs() == {}
    assert not prepare.run.path.exists()


def test_naming_the_format_that_was_found_changes_nothing(workplace: Path) -> None:
    (workplace / "text" / "train.txt").write_text(tweet("1"))
    assert (
        stage(workplace, format="twitter").parameters()
        == stage(workplace).parameters()
        == {"task": "ner", "format": "twitter"}
    )


def test_the_order_of_lines_changes_neither_samples_nor_images(workplace: Path) -> None:
    dice = random.Random(0)
    for number in range(5):
        (workplace / "images" / f"{number}.jpg").write_bytes(picture("red", size=(number + 1, 4)))
    tweets = [tweet(str(dice.randrange(8)), f"word {dice.randrange(3)}") for _ in range(30)]
    outputs = []
    for run in ("one", "two"):
        (workplace / "text" / "train.txt").write_text("".join(tweets))
        prepare = stage(workplace, run=run)
        prepare.compute(prepare.causes(), Tools())
        outputs.append(prepare.outputs())
        dice.shuffle(tweets)
    assert outputs[0] == outputs[1]
    assert outputs[0].keys() == {"samples", "images", "problems"}


def test_where_the_folders_lie_changes_no_digest(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    for place in (workplace, other):
        for folder in ("text", "images"):
            (place / folder).mkdir(exist_ok=True)
        (place / "text" / "train.txt").write_text(tweet("1") + tweet("2"))
        (place / "images" / "1.jpg").write_bytes(picture("red"))
        prepare = stage(place)
        prepare.compute(prepare.causes(), Tools())
    assert record(stage(workplace)) == record(stage(other))
    assert tables(stage(workplace))[1] != tables(stage(other))[1]  # the path is kept, outside the digest


def test_each_change_of_the_input_changes_its_digest_and_no_other(workplace: Path) -> None:
    (workplace / "text" / "train.txt").write_text(tweet("1"))
    (workplace / "text" / "valid.txt").write_text(tweet("2"))
    (workplace / "images" / "1.jpg").write_bytes(picture("red"))
    prepare = stage(workplace)

    def changed_by(act: Callable[[], Any]) -> set[str]:
        before = prepare.inputs()
        act()
        after = prepare.inputs()
        return {name for name in before | after if before.get(name) != after.get(name)}

    image = workplace / "images" / "1.jpg"
    assert changed_by(lambda: (workplace / "text" / "valid.txt").write_text(tweet("2", "other words"))) == {
        "text.valid"
    }
    assert changed_by(lambda: (workplace / "text" / "valid.txt").rename(workplace / "text" / "dev.txt")) == {
        "text.valid"
    }
    assert changed_by(lambda: image.write_bytes(picture("blue"))) == {"images"}
    assert changed_by(lambda: (workplace / "images" / "2.jpg").write_bytes(b"")) == {"images"}
    assert changed_by(lambda: image.rename(workplace / "images" / "gone")) == {"images"}
    assert changed_by(lambda: (workplace / "images" / "unrelated.jpg").write_bytes(picture("red"))) == set()
    assert changed_by(lambda: os.utime(workplace / "images" / "2.jpg", (1, 1))) == set()


@pytest.mark.slow
def test_a_first_run_reads_each_text_and_each_image_once(workplace: Path) -> None:
    for name, color in (("1.jpg", "red"), ("2.jpg", "blue"), ("3.jpg", "red")):
        (workplace / "images" / name).write_bytes(picture(color))
    (workplace / "text" / "train.txt").write_text(tweet("1") + tweet("2"))
    (workplace / "text" / "test.txt").write_text(tweet("3"))
    script = """
import sys
from pathlib import Path
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.prepare.settings import PrepareSettings
from hmnet_pipe.stages.prepare.stage import Prepare

place, opened = Path(sys.argv[1]), []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
settings = PrepareSettings(text=place / "text", images=place / "images", task="ner")
assert run_stage(Prepare(RunFolder(place / "run"), settings), SILENT).state == "done"
sources = [path for folder in ("text", "images") for path in sorted((place / folder).iterdir())]
print([opened.count(str(path)) for path in sources])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(workplace)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[1, 1, 1, 1, 1]", done.stdout + done.stderr


def test_remembered_digests_notice_a_changed_image_and_ignore_a_touched_one(workplace: Path) -> None:
    image = workplace / "images" / "1.bmp"
    image.write_bytes(picture("red", "BMP"))
    line = {"tokens": ["x"], "tags": ["O"], "image": "1.bmp"}
    (workplace / "text" / "train.jsonl").write_text(json.dumps(line))
    prepare = stage(workplace)
    memory = prepare.run.path / "stages" / "prepare.seen.parquet"
    prepare.compute(prepare.causes(), Tools())
    before = prepare.inputs()
    assert (
        not memory.exists() or pq.read_table(memory).num_rows == 0
    )  # too fresh: its times could stay the same at the next write
    prepare = settled(workplace)
    assert prepare.inputs() == before
    assert pq.read_table(memory)["key"].to_pylist() == [key(image.read_bytes())]

    times = image.stat()
    image.write_bytes(picture("blue", "BMP"))
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (image.stat().st_size, image.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert prepare.inputs()["images"] != before["images"]

    image.write_bytes(picture("red", "BMP"))
    os.utime(image)
    assert prepare.inputs() == before


def test_an_unchanged_image_is_not_read_again(workplace: Path) -> None:
    (workplace / "images" / "1.jpg").write_bytes(picture("red"))
    (workplace / "text" / "train.txt").write_text(tweet("1"))
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools())
    prepare = settled(workplace)
    before = prepare.inputs()
    memory = prepare.run.path / "stages" / "prepare.seen.parquet"
    table = pq.read_table(memory)
    planted = table.set_column(table.schema.get_field_index("key"), "key", [["0" * 64]])
    pq.write_table(planted, memory)
    assert (
        prepare.inputs()["images"] != before["images"]
    )  # the planted digest was believed, so the file was not read
    memory.write_bytes(b"damaged")
    assert prepare.inputs() == before


def test_a_damaged_or_missing_table_is_left_out_and_made_again(workplace: Path) -> None:
    (workplace / "images" / "1.jpg").write_bytes(picture("red"))
    (workplace / "text" / "train.txt").write_text(tweet("1") + tweet("2"))
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools())
    record(prepare).write(prepare.run.record("prepare"))
    whole = prepare.outputs()
    prepare.run.images.write_bytes(b"PAR1 damaged")
    prepare.run.problems.unlink()
    assert prepare.outputs().keys() == {"samples"}
    prepare.compute(prepare.causes(), Tools())
    assert prepare.outputs() == whole


def test_facts_about_images_are_reused_only_where_the_finished_record_vouches_for_them(
    workplace: Path,
) -> None:
    (workplace / "images" / "1.jpg").write_bytes(picture("red"))
    (workplace / "text" / "train.txt").write_text(tweet("1"))
    prepare = stage(workplace)
    prepare.compute(prepare.causes(), Tools())
    record(prepare).write(prepare.run.record("prepare"))
    whole = prepare.outputs()
    row = read_table(prepare.run.images, IMAGES).to_pylist()[0]
    write_table(prepare.run.images, table_of(IMAGES, [{**row, "width": 99}]))
    assert prepare.outputs() != whole
    prepare.compute(prepare.causes(), Tools())
    assert prepare.outputs() == whole


def test_twitter_pairs_have_all_their_images_whatever_these_are_called(data: Path, tmp_path: Path) -> None:
    folder = data / "twitter2015_pairs"
    prepare = Prepare(RunFolder(tmp_path / "run"), PrepareSettings(folder, "ner", folder / "images"))
    counts = prepare.compute(prepare.causes(), Tools())
    samples, images, problems = tables(prepare)
    assert counts.details["samples per split"] == {"train": 5, "valid": 5, "test": 5}
    assert (counts.done, counts.details["images"]) == (15, 15)
    formats = set()
    for sample in samples:
        content = (folder / "images" / sample["image"]).read_bytes()
        assert sample["image_key"] == key(content)
        formats.add("PNG" if content.startswith(b"\x89PNG") else "JPEG")
    assert formats == {"PNG", "JPEG"}
    for image in images:
        with Image.open(image["path"]) as expected:
            assert (image["width"], image["height"], image["status"]) == (*expected.size, "ok")
    assert {problem["kind"] for problem in problems} == {"tag"}


@pytest.mark.slow
def test_twitter_2015_without_its_images_is_prepared_with_a_problem_for_each_tweet(
    data: Path, tmp_path: Path
) -> None:
    prepare = Prepare(
        RunFolder(tmp_path / "run"), PrepareSettings(data / "twitter2015", "ner", data / "photos")
    )
    counts = prepare.compute(prepare.causes(), Tools())
    assert (counts.done, counts.details["samples whose image is missing"]) == (5000, 5000)
    assert counts.details["repaired tags"] == 186 + 53
    samples, images, problems = tables(prepare)
    assert (len(samples), len(images), len(problems)) == (5000, 0, 5000 + 186 + 53)
