"""Boxes of mentions: GMNER's and FMNERG's files, the key of JSON lines, and a row for whatever is wrong."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.record import StageRecord
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, MENTION_BOXES, PROBLEMS, SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.predict.export import export
from hmnet_pipe.pipeline.reproduce.outside import outside_of
from hmnet_pipe.pipeline.run.config import RunConfig
from hmnet_pipe.pipeline.run.new import prepare_config, prepare_run
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.prepare.settings import PrepareSettings
from PIL import Image

# In the form of Twitter10000/txt of GMNER: a word, a tab, its label.
GMNER = """IMGID:7
Ada\tB-PER
Lovelace\tI-PER
meets\tO
Ada\tB-PER
Lovelace\tI-PER
in\tO
Turin\tB-LOC

IMGID:O_8
Zuse\tB-PER
of\tO
Z3\tB-OTHER
"""
# And of Twitter10000v2/txt_fine of FMNERG: coarse and fine types.
FMNERG = """IMGID:7
Ada\tB-person\tB-author
Lovelace\tI-person\tI-author
sees\tO\tO
Turin\tB-location\tB-city

IMGID:O_8
rain\tO\tO
"""
SIZE = (60, 40)


def as_object(name: str, box: tuple[Any, ...]) -> str:
    """Return an object as labelImg writes it."""
    named = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    sides = "".join(f"\t\t\t<{side}>{at}</{side}>\n" for side, at in named)
    return (
        f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>1</truncated>\n"
        f"\t\t<difficult>0</difficult>\n\t\t<bndbox>\n{sides}\t\t</bndbox>\n\t</object>\n"
    )


def as_file(*objects: str, size: tuple[int, int] = SIZE) -> str:
    """Return a file of Twitter10000/xml: an object begins in line 14, and the next 12 lines later."""
    return (
        "<annotation>\n\t<folder>9-split</folder>\n\t<filename>7.jpg</filename>\n"
        "\t<path>D:\\图片\\7.jpg</path>\n\t<source>\n\t\t<database>Unknown</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{size[0]}</width>\n\t\t<height>{size[1]}</height>\n\t\t<depth>3</depth>\n"
        f"\t</size>\n\t<segmented>0</segmented>\n{''.join(objects)}</annotation>\n"
    )


def corpus(folder: Path, text: str = GMNER, name: str = "train.txt", **files: str) -> Path:
    """Write texts, their images, and files of boxes by their names."""
    for part in ("txt", "images", "xml"):
        (folder / part).mkdir(parents=True)
    (folder / "txt" / name).write_text(text, encoding="utf-8")
    for number, image in enumerate(("7", "O_8")):
        Image.new("RGB", SIZE, (40 * number, 90, 20)).save(folder / "images" / f"{image}.jpg")
    for image, content in files.items():
        (folder / "xml" / f"{image.removeprefix('_')}.xml").write_text(content, encoding="utf-8")
    return folder


def prepared(folder: Path, **reading: Any) -> RunFolder:
    """Prepare a run of a corpus as the command does."""
    run = RunFolder(folder / "run")
    texts, images = folder / "txt", folder / "images"
    prepare_run(run, prepare_config(run, "custom", "ner", texts, images, "auto", reading), SILENT)
    return run


def rows(run: RunFolder) -> list[tuple[Any, ...]]:
    return [
        (row["id"], tuple(row["words"]), row["type"], *(row[side] for side in ("x0", "y0", "x1", "y1")))
        for row in read_table(run.mention_boxes, MENTION_BOXES).to_pylist()
    ]


def problems(run: RunFolder) -> list[tuple[str, str, str]]:
    found = read_table(run.problems, PROBLEMS).to_pylist()
    assert {row["kind"] for row in found} <= {"box"}
    return [(row["sample"], row["where"], row["reason"]) for row in found]


def test_boxes_of_gmner_go_to_every_mention_of_their_name(tmp_path: Path) -> None:
    boxes = as_object("Ada Lovelace", (1, 2, 30, 40)), as_object("Ada Lovelace", (10, 2, 60, 20))
    run = prepared(corpus(tmp_path, _7=as_file(*boxes)), mention_boxes=str(tmp_path / "xml"))
    ada = [(1, 2, 30, 40), (10, 2, 60, 20)]
    nowhere = (None,) * 4
    assert rows(run) == [
        *(("7", (0, 2), "PER", *box) for box in ada),
        *(("7", (3, 5), "PER", *box) for box in ada),
        ("7", (6, 7), "LOC", *nowhere),
        # An image without a file shows none of its text's mentions.
        ("O_8", (0, 1), "PER", *nowhere),
        ("O_8", (2, 3), "MISC", *nowhere),
    ]
    assert problems(run) == []
    record = StageRecord.read(run.record("prepare"))
    assert record is not None
    assert {"mention_boxes", "samples"} <= record.outputs.keys()
    counts = record.facts["counts"]["details"]
    assert (counts["boxes of mentions"], counts["mentions that the image does not show"]) == (4, 3)


def test_fmnerg_is_read_with_the_coarse_or_the_fine_types(tmp_path: Path) -> None:
    file = as_file(as_object("Ada Lovelace", (1, 2, 30, 40)))
    folder = corpus(tmp_path, FMNERG, _7=file)
    with pytest.raises(InputError, match=r"found 3 columns; say which holds the labels, such as --column 3"):
        prepared(folder, mention_boxes=str(folder / "xml"))
    for column, types in ((2, ["person", "location"]), (3, ["author", "city"])):
        run = prepared(folder, mention_boxes=str(folder / "xml"), column=column)
        assert [row[2] for row in rows(run)] == types
        assert rows(run)[0] == ("7", (0, 2), types[0], 1, 2, 30, 40)


def doctype(file: str) -> str:
    return f'<!DOCTYPE annotation [<!ENTITY a "aaaa">]>\n{file}'


GOOD = as_object("Turin", (1, 2, 30, 40))


@pytest.mark.parametrize(
    ("content", "where", "reason", "left"),
    [
        (
            as_file(GOOD, as_object("Ada Lovelace", (1, 2, 70, 40))),
            "7.xml:26",
            r"the box \[1, 2, 70, 40\] of 'Ada Lovelace' lies outside the image of 60 x 40; correct it",
            ["Turin"],
        ),
        (
            as_file(as_object("Ada Lovelace", (30, 2, 1, 40)), GOOD),
            "7.xml:14",
            r"the box \[30, 2, 1, 40\] of 'Ada Lovelace' is empty: .* must hold; correct it",
            ["Turin"],
        ),
        (
            as_file(as_object("Ada Lovelace", ("a", 2, 1, 40)), GOOD),
            "7.xml:14",
            r"the box of 'Ada Lovelace' must be four numbers x0, y0, x1, y1, not \['a', 2, 1, 40\]",
            ["Turin"],
        ),
        (
            as_file("<object><name>Ada Lovelace</name></object>", GOOD),
            "7.xml:14",
            r"the box of 'Ada Lovelace' must be four numbers .* not \[None, None, None, None\]",
            ["Turin"],
        ),
        (
            as_file(as_object("Ada", (1, 2, 30, 40)), GOOD),
            "7.xml:14",
            r"'Ada' is no mention; the text's mentions are 'Ada Lovelace', 'Turin': correct the name or the",
            ["Ada Lovelace", "Ada Lovelace", "Turin"],
        ),
        (
            as_file(as_object("", (1, 2, 30, 40)), GOOD),
            "7.xml:14",
            r"an object has no name; the text's mentions are",
            ["Ada Lovelace", "Ada Lovelace", "Turin"],
        ),
        (
            as_file(GOOD, size=(40, 60)),
            "7.xml",
            r"its boxes are of an image of 40 x 60, and the image has 60 x 40; give the image that was annot",
            [],
        ),
        (as_file(GOOD)[:-5], "7.xml:26", r"it is no XML \(.*\); write it again", []),
        ("", "7.xml:1", r"it is no XML \(no element found", []),
        ("<html></html>", "7.xml:1", r"it holds <html>, where <annotation> is expected; write it again", []),
        (doctype(as_file(GOOD)), "7.xml:1", r"it declares a document type, which no file of boxes needs", []),
    ],
)
def test_what_is_wrong_with_a_file_is_a_row_and_the_rest_is_used(
    content: str, where: str, reason: str, left: list[str], tmp_path: Path
) -> None:
    run = prepared(corpus(tmp_path, _7=content), mention_boxes=str(tmp_path / "xml"))
    [(sample, place, said)] = problems(run)
    assert place == where
    assert re.match(reason, said), said
    assert sample == ("7" if "write it again" not in said and "document" not in said else "")
    tokens = {row["id"]: row["tokens"] for row in read_table(run.samples, SAMPLES).to_pylist()}
    found = rows(run)
    # A mention whose every box was refused is not said to be out of the picture.
    assert [" ".join(tokens["7"][slice(*words)]) for name, words, *_ in found if name == "7"] == left
    shown = [row for row in found if row[0] == "7" and row[3] is not None]
    assert [row[3:] for row in shown] == ([(1, 2, 30, 40)] if left else [])


def test_a_file_of_an_image_that_no_text_names_is_a_row(tmp_path: Path) -> None:
    run = prepared(corpus(tmp_path, _9=as_file(GOOD)), mention_boxes=str(tmp_path / "xml"))
    reason = "no text names this image; add its texts to the splits, or remove the file"
    assert problems(run) == [("", "9.xml", reason)]


def test_an_image_that_cannot_be_used_has_one_row_and_no_boxes(tmp_path: Path) -> None:
    folder = corpus(tmp_path, _7=as_file(GOOD))
    (folder / "images" / "7.jpg").write_bytes(b"no image")
    run = prepared(folder, mention_boxes=str(folder / "xml"))
    assert [row[0] for row in rows(run)] == ["O_8", "O_8"]
    [row] = read_table(run.problems, PROBLEMS).to_pylist()
    assert (row["kind"], row["sample"]) == ("image", "7")


def jsonl(folder: Path, *samples: dict[str, Any]) -> Path:
    return corpus(folder, "".join(json.dumps(sample) + "\n" for sample in samples), "train.jsonl")


TOKENS = {"tokens": ["Ada", "in", "Turin"], "tags": ["B-PER", "O", "B-LOC"], "image": "7.jpg"}
SPANS: dict[str, Any] = {
    "text": "Ada in Turin",
    "spans": [{"start": 7, "end": 12, "type": "LOC"}, {"start": 0, "end": 3, "type": "PER"}],
    "image": "O_8.jpg",
}


def test_json_lines_may_have_the_boxes_of_each_mention(tmp_path: Path) -> None:
    box = [1.5, 2, 30, 40]
    folder = jsonl(
        tmp_path,
        {"id": "a", **TOKENS, "boxes": [[box, box, [0, 0, 60, 40]], []]},
        {"id": "b", **SPANS, "boxes": [[box], None]},
        {"id": "c", **TOKENS, "boxes": [[[0, 0, 9, 99]], [[0, 0, 99, 9], box]]},
        {"id": "d", **TOKENS},
    )
    other = {"id": "e", **SPANS, "boxes": [None, [[3, 4, 5, 6]]]}
    (folder / "txt" / "test.jsonl").write_text(json.dumps(other))
    run = prepared(folder)
    assert rows(run) == [
        ("e", (0, 1), "PER", 3, 4, 5, 6),
        ("a", (0, 1), "PER", *box),
        ("a", (0, 1), "PER", 0, 0, 60, 40),
        ("a", (2, 3), "LOC", None, None, None, None),
        ("b", (2, 3), "LOC", *box),
        ("c", (2, 3), "LOC", *box),
    ]
    outside = "lies outside the image of 60 x 40; correct it"
    assert problems(run) == [
        ("c", "train.jsonl:3", f"the box [0.0, 0.0, 9.0, 99.0] of 'Ada' {outside}"),
        ("c", "train.jsonl:3", f"the box [0.0, 0.0, 99.0, 9.0] of 'Turin' {outside}"),
    ]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({**TOKENS, "boxes": [[]]}, r'line 1: "boxes" must be a list of 2, one for each mention'),
        ({**SPANS, "boxes": [[], [], []]}, r'"boxes" must be a list of 2, one for each span'),
        (
            {**TOKENS, "boxes": [[1, 2, 3, 4], []]},
            r'"boxes\[0\]" must be null or a list of boxes, each of f',
        ),
        ({**TOKENS, "boxes": [[], [[1, 2, 3, "4"]]]}, r'"boxes\[1\]" must be null or a list of boxes'),
        ({**TOKENS, "boxes": [[], [[1, 2, 3, True]]]}, r'"boxes\[1\]" must be null or a list of boxes'),
        (
            {**TOKENS, "image": None, "boxes": [[], []]},
            r"in pixels of an image, and there is no \"image\"; n",
        ),
    ],
)
def test_a_wrong_list_of_boxes_ends_the_command_with_its_line(
    sample: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(jsonl(tmp_path, sample))


def test_relations_and_runs_without_images_have_no_boxes_of_mentions(tmp_path: Path) -> None:
    for task, images, said in (
        ("re", tmp_path, "relations have no boxes of mentions; leave it out"),
        (
            "ner",
            None,
            "a run without images has no boxes of mentions; name the folder of images with --images",
        ),
    ):
        with pytest.raises(InputError, match=f"--mention-boxes: {said}"):
            PrepareSettings(tmp_path, task, images, mention_boxes="xml")


@pytest.mark.parametrize("name", ["nowhere", "images"])
def test_a_folder_without_files_of_boxes_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{name} \(--mention-boxes\) is no folder with \.xml files; give"):
        prepared(corpus(tmp_path), mention_boxes=str(tmp_path / name))


def test_a_changed_file_changes_the_table_alone_and_without_the_folder_it_goes(tmp_path: Path) -> None:
    folder = corpus(tmp_path, _7=as_file(GOOD))
    there = str(folder / "xml")

    def outputs(**reading: Any) -> dict[str, str]:
        record = StageRecord.read(prepared(folder, **reading).record("prepare"))
        assert record is not None
        assert "mention_boxes" not in record.parameters
        return dict(record.outputs)

    before = outputs(mention_boxes=there)
    assert outputs(mention_boxes=there) == before
    (folder / "xml" / "7.xml").write_text(as_file(as_object("Turin", (1, 2, 31, 40))))
    after = outputs(mention_boxes=there)
    assert {name for name in before if before[name] != after[name]} == {"mention_boxes"}
    without = outputs()
    assert without == {name: digest for name, digest in before.items() if name != "mention_boxes"}
    assert not RunFolder(folder / "run").mention_boxes.exists()


def test_a_place_in_run_toml_is_absolute_and_a_lock_asks_for_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = corpus(tmp_path, _7=as_file(GOOD))
    monkeypatch.chdir(folder)
    run = prepared(folder, mention_boxes="xml")
    config = RunConfig.read(run.config)
    assert config.of(PrepareSettings).mention_boxes == str(folder / "xml")
    record = StageRecord.read(run.record("prepare"))
    assert record is not None
    locked = {"stages": {"prepare": {"inputs": dict(record.inputs)}}}
    [outside] = outside_of(locked, config)
    assert (outside.option, outside.locked == outside.here) == ("--mention-boxes FOLDER", True)
    (folder / "xml" / "7.xml").write_text("other")
    [outside] = outside_of(locked, config)
    assert outside.locked != outside.here
    with pytest.raises(InputError, match=r"give it with --mention-boxes FOLDER"):
        list(outside_of(locked, config.override("prepare", {"mention_boxes": "gone"})))


def test_dealt_images_have_no_boxes_of_other_images(tmp_path: Path) -> None:
    folder = corpus(tmp_path, _7=as_file(GOOD))
    run = prepared(folder, mention_boxes=str(folder / "xml"), deal_images=1)
    names = {row["key"]: Path(row["path"]).stem for row in read_table(run.images, IMAGES).to_pylist()}
    samples = read_table(run.samples, SAMPLES).to_pylist()
    own = {row["id"] for row in samples if names[row["image_key"]] == row["id"]}
    assert {row[0] for row in rows(run)} == own != {"7", "O_8"}


def test_an_export_as_json_lines_is_read_back_to_the_same_boxes(tmp_path: Path) -> None:
    folder = corpus(tmp_path, _7=as_file(as_object("Ada Lovelace", (1, 2, 30, 40)), GOOD))
    run = prepared(folder, mention_boxes=str(folder / "xml"))
    export(run, "jsonl", tmp_path / "again" / "txt")
    (tmp_path / "again" / "images").symlink_to(folder / "images")
    assert rows(prepared(tmp_path / "again")) == rows(run)
    assert len(rows(run)) == 5
